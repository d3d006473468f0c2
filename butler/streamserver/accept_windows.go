package streamserver

import (
	"net"
	"time"
)

// settleTime is how long nobody may come before nobody is there.
const settleTime = 100 * time.Millisecond

// acceptAll returns the connections that are established and were not accepted yet.
func acceptAll(l *net.TCPListener) []net.Conn {
	var conns []net.Conn
	for {
		if l.SetDeadline(time.Now().Add(settleTime)) != nil {
			return conns
		}
		conn, err := l.Accept()
		if err != nil {
			return conns
		}
		conns = append(conns, conn)
	}
}
