//go:build unix

package streamclient

import (
	"strings"
	"testing"
)

func TestStaleSocket(t *testing.T) {
	s := startServer(t, "unix", &server{})
	client := s.client(t)
	s.listener.Close()
	if _, err := client.NewStream(t.Context(), "t"); err == nil || !strings.Contains(err.Error(), `stream "t"`) {
		t.Errorf("error %v", err)
	}
	if _, err := New(s.address, ""); err == nil || !strings.Contains(err.Error(), "still running") {
		t.Errorf("error %v", err)
	}
}
