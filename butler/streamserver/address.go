package streamserver

import (
	"log/slog"
	"net/netip"
	"strings"

	"github.com/daybook-dev/daybook/internal/fault"
)

// listen begins to listen at an address.
func listen(address string, log *slog.Logger) (listener, error) {
	if address == "" {
		return listenHere()
	}
	protocol, value, _ := strings.Cut(address, ":")
	switch protocol {
	case "unix":
		return listenSocket(value, log)
	case "net.pipe":
		return listenPipe(value)
	case "tcp4", "tcp6":
		return listenTCP(protocol, value)
	}
	return nil, fault.New(fault.Invalid,
		"stream server at %q: unknown protocol; use unix:PATH, net.pipe:NAME, tcp4:127.0.0.1:PORT or tcp6:[::1]:PORT", address)
}

// parseTCP returns the address to listen at. The protocol above it knows no passwords, so it has to be loopback.
func parseTCP(protocol, value string) (netip.AddrPort, error) {
	loopback := netip.IPv6Loopback()
	if protocol == "tcp4" {
		loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if value == "" {
		return netip.AddrPortFrom(loopback, 0), nil
	}
	if rest, ok := strings.CutPrefix(value, ":"); ok {
		value = netip.AddrPortFrom(loopback, 0).String()
		value = value[:strings.LastIndexByte(value, ':')+1] + rest
	}
	a, err := netip.ParseAddrPort(value)
	switch {
	case err != nil:
		return a, fault.New(fault.Invalid, "stream server at %s:%s: %w", protocol, value, err)
	case !a.Addr().IsLoopback() || a.Addr().Is4() != loopback.Is4():
		return a, fault.New(fault.Invalid, "stream server at %s:%s: only an address on loopback is possible, like %s; "+
			"programs elsewhere come through a port that is forwarded to it", protocol, value, loopback)
	}
	return a, nil
}
