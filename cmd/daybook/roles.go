package main

import (
	"strings"

	"github.com/daybook-dev/daybook/internal/fault"
)

// roles is a set of the parts of a system. A process has some of them, or all; those that it lacks are elsewhere.
type roles uint

const (
	roleBroker      roles = 1 << iota // keeps journals
	roleCoordinator                   // keeps the streams' state, and answers readers
	roleCollector                     // brings what the journals hold into storage
	roleArchivist                     // brings finished streams from storage into the archive
	roleWeb                           // serves pages and the data API
	allRoles        roles = 1<<iota - 1
)

var roleNames = [...]string{"broker", "coordinator", "collector", "archivist", "web"}

// has reports whether any of the given roles is in the set.
func (r roles) has(any roles) bool { return r&any != 0 }

// String returns the names, as on the command line.
func (r roles) String() string {
	var names []string
	for i, name := range roleNames {
		if r.has(1 << i) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// UnmarshalText implements encoding.TextUnmarshaler, for flags.
func (r *roles) UnmarshalText(text []byte) error {
	*r = 0
next:
	for name := range strings.SplitSeq(string(text), ",") {
		for i, known := range roleNames {
			if name == known {
				*r |= 1 << i
				continue next
			}
		}
		return fault.New(fault.Invalid, "there is no role %q; the roles are %s", name, strings.Join(roleNames[:], ", "))
	}
	return nil
}
