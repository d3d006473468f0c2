//go:build unix && !linux

package streamserver

import (
	"net"
	"testing"
)

// dialAs returns how to connect as another user: the server is made to belong to one.
func dialAs(t *testing.T, l *socketListener) func(*Server) net.Conn {
	l.owner++
	return func(s *Server) net.Conn { return dial(t, s) }
}
