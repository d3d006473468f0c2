package streamserver

import (
	"testing"

	"github.com/daybook-dev/daybook/internal/fault"
)

func TestAddresses(t *testing.T) {
	for _, bad := range []string{
		"nonsense", "unix", "http://x", "tcp:127.0.0.1:0", "tcp4:0.0.0.0:0", "tcp4:10.1.2.3:0", "tcp4:[::1]:0", "tcp6:127.0.0.1:0",
		"tcp6:[::]:0", "tcp4:localhost:0", "tcp4:127.0.0.1:99999", "tcp4:127.0.0.1", "null",
	} {
		s, err := Listen(bad, Config{})
		if bad == "unix" && err == nil {
			s.Close()
			continue
		}
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for value, want := range map[string]string{
		"": "127.0.0.1:0", ":": "", ":0": "127.0.0.1:0", ":80": "127.0.0.1:80", "127.0.0.1:80": "127.0.0.1:80", "127.1.2.3:80": "127.1.2.3:80",
	} {
		got, err := parseTCP("tcp4", value)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q: %v, %v; want %s", value, got, err, want)
		}
	}
}
