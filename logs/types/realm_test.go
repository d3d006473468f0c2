package types

import (
	"strings"
	"testing"
)

func TestValidRealm(t *testing.T) {
	for name, want := range map[string]bool{
		"": false, "a": true, "ci/try_1.x-2": true, "@root": true, "@legacy": true, "@project": true, "@other": false, "@": false, "A": false,
		"a b": false, "a\n": false, "é": false, "a:b": false, strings.Repeat("a", 400): true, strings.Repeat("a", 401): false,
	} {
		if got := ValidRealm(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}
