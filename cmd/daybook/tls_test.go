package main

import (
	"testing"

	"github.com/daybook-dev/daybook/internal/fault"
)

func TestDoorFlags(t *testing.T) {
	for _, test := range []struct {
		flags   doorFlags
		refused bool
		tokens  bool
	}{
		{doorFlags{Listen: "127.0.0.1:0"}, false, false},
		{doorFlags{Listen: "localhost:4660"}, false, false},
		{doorFlags{Listen: "[::1]:0"}, false, false},
		{doorFlags{Listen: "127.0.0.1:0", Auth: true}, false, true},
		{doorFlags{Listen: ":4660"}, true, true},
		{doorFlags{Listen: "0.0.0.0:1"}, true, true},
		{doorFlags{Listen: "10.0.0.1:1", Auth: true}, true, true},
		{doorFlags{Listen: "logs.example:1"}, true, true},
		{doorFlags{Listen: "10.0.0.1:1", TLSCert: "c", TLSKey: "k"}, false, true},
		{doorFlags{Listen: "10.0.0.1:1", TLSCert: "c"}, true, true},
		{doorFlags{Listen: "127.0.0.1:1", TLSKey: "k"}, true, false},
		{doorFlags{Listen: "10.0.0.1:1", Insecure: true}, false, false},
		{doorFlags{Listen: "10.0.0.1:1", Insecure: true, Auth: true}, false, true},
		{doorFlags{Listen: "10.0.0.1:1", Insecure: true, TLSCert: "c", TLSKey: "k"}, false, false},
		{doorFlags{Listen: "x"}, true, true},
	} {
		if err := test.flags.check(); fault.Is(err, fault.Invalid) != test.refused {
			t.Errorf("%+v: %v", test.flags, err)
		}
		if got := test.flags.demandsTokens(); got != test.tokens {
			t.Errorf("%+v demands tokens: %v", test.flags, got)
		}
	}
}

func TestReachable(t *testing.T) {
	for _, address := range []string{"127.0.0.1:1", "10.0.0.1:1", "[::1]:1"} {
		if got := reachable(address); got != address {
			t.Errorf("%s became %s", address, got)
		}
	}
	for _, address := range []string{"0.0.0.0:1", "[::]:1"} {
		if got := reachable(address); got == address {
			t.Errorf("%s leads nowhere", address)
		}
	}
}
