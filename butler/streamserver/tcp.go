package streamserver

import (
	"fmt"
	"net"
	"time"
)

// tcpListener is a port on loopback.
type tcpListener struct {
	*net.TCPListener
	protocol string
}

func listenTCP(protocol, value string) (listener, error) {
	a, err := parseTCP(protocol, value)
	if err != nil {
		return nil, err
	}
	l, err := net.ListenTCP(protocol, net.TCPAddrFromAddrPort(a))
	if err != nil {
		return nil, fmt.Errorf("stream server: %w", err)
	}
	return &tcpListener{l, protocol}, nil
}

func (l *tcpListener) address() string { return l.protocol + ":" + l.Addr().String() }

func (l *tcpListener) stop() { _ = l.SetDeadline(time.Unix(1, 0)) }

func (l *tcpListener) drain() []net.Conn {
	conns := acceptAll(l.TCPListener)
	_ = l.Close() // nothing is behind it any more
	return conns
}

// authorize admits everybody on the machine.
func (*tcpListener) authorize(net.Conn) error { return nil }
