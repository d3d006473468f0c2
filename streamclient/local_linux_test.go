package streamclient

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

func TestQueueOfConnectionsIsFull(t *testing.T) {
	dir := shortDir(t)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: dir + "/s"})
	}
	if err == nil {
		err = syscall.Listen(fd, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	listener, err := net.FileListener(file)
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := New("unix:"+dir+"/s", "")
	if err != nil {
		t.Fatal(err)
	}
	// How many fit differs between systems; these are more.
	const streams = 200
	opened := make(chan error, streams)
	for range streams {
		go func() {
			w, err := client.NewStream(t.Context(), "t")
			if err == nil {
				err = w.Close()
			}
			opened <- err
		}()
	}
	var server []net.Conn
	for range streams {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		server = append(server, conn)
	}
	for range streams {
		if err := <-opened; err != nil {
			t.Error(err)
		}
	}
	for _, conn := range server {
		conn.Close()
	}

	// A context ends the wait.
	ctx, cancel := context.WithCancel(t.Context())
	for range streams {
		go func() {
			_, err := client.NewStream(ctx, "t")
			opened <- err
		}()
	}
	cancel()
	failed := 0
	for range streams {
		if err := <-opened; errors.Is(err, context.Canceled) {
			failed++
		}
	}
	if failed == 0 {
		t.Error("all of the streams were opened")
	}
}
