package reader

import (
	"testing"

	"github.com/daybook-dev/daybook/internal/fault"
)

// A page token that is taken is one that is given out, so nothing that is made up leads anywhere else.
func FuzzPageTokens(f *testing.F) {
	f.Add("")
	f.Add("AAY5kvwcV8AB")
	f.Add("LTE")
	f.Add("________________")
	f.Fuzz(func(t *testing.T, token string) {
		p, err := parsePositionToken(token)
		switch {
		case err != nil && !fault.Is(err, fault.Invalid):
			t.Errorf("position %q: %v", token, err)
		case err == nil:
			if again, err := parsePositionToken(positionToken(p)); err != nil || !again.Created.Equal(p.Created) || again.Seq != p.Seq {
				t.Errorf("position %q is %v, and again %v, %v", token, p, again, err)
			}
		}
		name, err := parseNameToken(token)
		switch {
		case err != nil && !fault.Is(err, fault.Invalid):
			t.Errorf("name %q: %v", token, err)
		case err == nil:
			if again, err := parseNameToken(nameToken(name)); err != nil || again != name {
				t.Errorf("name %q is %q, and again %q, %v", token, name, again, err)
			}
		}
	})
}
