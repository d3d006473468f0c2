package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/internal/datadir"
	"github.com/daybook-dev/daybook/internal/fault"
)

// defaultListen is where a server listens unless told otherwise.
const defaultListen = "127.0.0.1:4660"

// dataFlags are the flags of every command that touches local data.
type dataFlags struct {
	Data string `help:"Data directory; by default below your data home." env:"DAYBOOK_DATA" placeholder:"DIR" type:"path"`
}

func (f *dataFlags) open() (*datadir.Dir, error) {
	path := f.Data
	if path == "" {
		var err error
		if path, err = datadir.Default(); err != nil {
			return nil, err
		}
	}
	return datadir.Open(path)
}

// serverFlags are the flags of every command that talks to a server.
type serverFlags struct {
	dataFlags
	Server string `help:"Address of the server; by default the one that serves the data directory, or none." env:"DAYBOOK_SERVER" placeholder:"HOST:PORT"`
}

// link is the way to a server: to the one that was named; or to the one that serves the data directory; or, when nobody does, to
// one in this process, which gives way when a server starts. Each connection asks anew, so a server that was restarted
// elsewhere is found, and the place of one that died is taken.
type link struct {
	dir    *datadir.Dir
	server string // host:port; empty to use dir
	log    *slog.Logger
	conn   *grpc.ClientConn

	mu     sync.Mutex // held while a system is opened or closed
	sys    *system    // ours, if we are the holder
	hold   *datadir.Hold
	closed bool
	given  sync.WaitGroup // systems that give way
}

// openLink opens the way to the server. Nothing is dialled yet, but if nobody serves the data directory this process does from
// now on. The link must be closed.
func (f *serverFlags) openLink(ctx context.Context, log *slog.Logger) (*link, error) {
	server, err := hostPort(f.Server)
	if err != nil {
		return nil, err
	}
	dir, err := f.open()
	if err != nil {
		return nil, err
	}
	l := &link{dir: dir, server: server, log: log}
	if _, err := l.Address(ctx); err != nil {
		return nil, err
	}
	l.conn, err = client.Dial("passthrough:///daybook", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.dial(ctx) }))
	if err != nil {
		_ = l.Close(ctx)
		return nil, err
	}
	return l, nil
}

// hostPort accepts a URL as well as host:port.
func hostPort(server string) (string, error) {
	if server == "" {
		return "", nil
	}
	if strings.Contains(server, "://") {
		u, err := url.Parse(server)
		if err != nil || u.Scheme != "http" || u.Host == "" {
			return "", fault.New(fault.Invalid, "server %q is not an address; give host:port or http://host:port", server)
		}
		server = u.Host
	}
	if _, _, err := net.SplitHostPort(server); err != nil {
		return "", fault.New(fault.Invalid, "server %q is not an address; give host:port or http://host:port", server)
	}
	return server, nil
}

// Address returns host:port of the server as of now. It becomes the server if there is none.
func (l *link) Address(ctx context.Context) (string, error) {
	if l.server != "" {
		return l.server, nil
	}
	for {
		address, err := l.address(ctx)
		if !errors.Is(err, datadir.ErrHeld) {
			return address, err
		}
		if h, ok := l.dir.Holder(); ok {
			return h.Address, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("find the server of %s: %w", l.dir.Path(), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// address returns our own address, or ErrHeld if another process is the holder.
func (l *link) address(ctx context.Context) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return "", fault.New(fault.Canceled, "the way to the server is closed")
	case l.sys != nil:
		return l.sys.Address(), nil
	}
	hold, err := l.dir.TryHold()
	if err != nil {
		return "", err
	}
	sys, err := openAndAnnounce(ctx, systemConfig{layout: embedded, Dir: l.dir, Kind: datadir.Command, Log: l.log}, hold, "")
	if err != nil {
		return "", errors.Join(err, hold.Release())
	}
	l.sys, l.hold = sys, hold
	l.given.Go(func() { l.giveWay(sys) })
	return sys.Address(), nil
}

// giveWay closes our system when a server asks for the directory.
func (l *link) giveWay(sys *system) {
	select {
	case <-sys.Handover():
	case <-sys.Done():
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sys != sys {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	if err := l.closeSystem(ctx); err != nil {
		l.log.Error("give way to a server", "error", err)
	}
}

// closeSystem closes our system and gives up the directory. The caller holds l.mu.
func (l *link) closeSystem(ctx context.Context) error {
	err := l.sys.Close(ctx)
	l.sys = nil
	return errors.Join(err, l.hold.Release())
}

func (l *link) dial(ctx context.Context) (net.Conn, error) {
	address, err := l.Address(ctx)
	if err != nil {
		return nil, err
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// URL returns the address of the pages.
func (l *link) URL(ctx context.Context) (string, error) {
	address, err := l.Address(ctx)
	return "http://" + address, err
}

// Spools returns the directory of the spools of output that is meant for this server.
func (l *link) Spools() string { return spoolsFor(l.dir, l.server) }

// spoolsFor keeps apart what is meant for the server of the data directory, and for servers that were named.
func spoolsFor(d *datadir.Dir, server string) string {
	if server == "" {
		return d.Join("spool", "local")
	}
	return d.Join("spool", strings.NewReplacer(":", "_", "[", "", "]", "").Replace(server))
}

// Close closes the connection, and our system if we have one, after it has finished what it can until ctx ends.
func (l *link) Close(ctx context.Context) error {
	var err error
	l.mu.Lock()
	l.closed = true
	if l.sys != nil {
		l.sys.Drain(ctx)
	}
	if l.conn != nil {
		err = l.conn.Close()
	}
	if l.sys != nil {
		err = errors.Join(err, l.closeSystem(ctx))
	}
	l.mu.Unlock()
	l.given.Wait()
	return err
}

// openAndAnnounce opens a system on a directory that we hold. It listens on listen, or if that is empty on the default address
// or, when that is taken, on any port of loopback.
func openAndAnnounce(ctx context.Context, c systemConfig, hold *datadir.Hold, listen string) (*system, error) {
	lis, err := listenOn(listen)
	if err != nil {
		return nil, err
	}
	who := datadir.Holder{PID: os.Getpid(), Kind: c.Kind, Address: lis.Addr().String(), Started: time.Now().UTC(), Token: rand.Text()}
	c.Listener, c.Token = lis, who.Token
	sys, err := openSystem(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := hold.Announce(who); err != nil {
		return nil, errors.Join(err, sys.Close(ctx))
	}
	return sys, nil
}

func listenOn(address string) (net.Listener, error) {
	if address != "" {
		lis, err := net.Listen("tcp", address)
		if err != nil {
			return nil, fmt.Errorf("listen: %w; choose another address with --listen", err)
		}
		return lis, nil
	}
	if lis, err := net.Listen("tcp", defaultListen); err == nil {
		return lis, nil
	}
	return net.Listen("tcp", "127.0.0.1:0")
}
