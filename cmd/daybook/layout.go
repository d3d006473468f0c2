package main

import (
	"net/url"

	"github.com/daybook-dev/daybook/internal/fault"
)

// layout says which part of a system a process is, and where the rest of it lies. Without any flag it is all of it, with
// everything in the data directory.
type layout struct {
	Roles       roles  `help:"What this process does: ${default} or some of them." default:"broker,coordinator,collector,archivist,web" env:"DAYBOOK_ROLES" placeholder:"ROLE,…"`
	State       string `help:"Database of the streams' state: postgres://USER@HOST/DATABASE. By default it is in the data directory." env:"DAYBOOK_STATE" placeholder:"URL"`
	Entries     string `help:"Database of the recent entries: postgres://USER@HOST/DATABASE or bigtable://PROJECT/INSTANCE/TABLE. By default they are in the data directory." env:"DAYBOOK_ENTRIES" placeholder:"URL"`
	Archive     string `help:"Where archives are kept: a directory, s3://BUCKET/PREFIX?region=REGION, gs://BUCKET/PREFIX, azure://CONTAINER/PREFIX. By default they are in the data directory." env:"DAYBOOK_ARCHIVE" placeholder:"URL"`
	Journals    string `help:"Where the brokers are, if this process is none: http://HOST:PORT, https://HOST:PORT." env:"DAYBOOK_JOURNALS" placeholder:"URL"`
	Coordinator string `help:"Where the coordinator is, if this process is none." env:"DAYBOOK_COORDINATOR" placeholder:"HOST:PORT"`
	Config      string `help:"Configuration of the service and its projects; by default config.yaml in the data directory, if it is there. See docs/config.md." env:"DAYBOOK_CONFIG" placeholder:"FILE" type:"path"`
	Advertise   string `help:"Where others find this process; by default where it listens." env:"DAYBOOK_ADVERTISE" placeholder:"URL"`
}

// embedded is the layout of a system in one process.
var embedded = layout{Roles: allRoles}

// check refuses what cannot work, and says what would.
func (l *layout) check() error {
	const readers = roleCoordinator | roleCollector | roleArchivist // of entries
	missing := func(all roles) roles { return all &^ l.Roles }
	switch {
	case l.Roles == 0:
		return fault.New(fault.Invalid, "--roles: a process has one role at least")
	case l.Roles.has(roleBroker) && l.Journals != "":
		return fault.New(fault.Invalid, "--journals: a process with the role broker has the journals itself; take the role away from --roles, or leave --journals out")
	case l.Roles.has(roleCoordinator) && l.Coordinator != "":
		return fault.New(fault.Invalid, "--coordinator: this process has the role itself; take it away from --roles, or leave --coordinator out")
	case l.Roles.has(roleCoordinator) && !l.Roles.has(roleBroker) && l.Journals == "":
		return fault.New(fault.Invalid, "--roles=%s: whoever sends output to a coordinator sends it on to the journals; say with --journals where the brokers are, or add the role broker", l.Roles)
	case l.Roles.has(roleCollector|roleArchivist|roleWeb) && !l.Roles.has(roleCoordinator) && l.Coordinator == "":
		return fault.New(fault.Invalid, "--roles=%s: these roles ask a coordinator; say with --coordinator where it is, or add the role coordinator", l.Roles)
	case l.Roles.has(readers) && missing(readers) != 0 && l.Entries == "":
		return fault.New(fault.Invalid, "--roles=%s without %s: recent entries in the data directory can be used by one process only; "+
			"say with --entries postgres://… where all of these roles have them, or let one process have them all", l.Roles, missing(readers))
	case l.Roles.has(roleCoordinator|roleArchivist) && missing(roleCoordinator|roleArchivist) != 0 && l.Archive == "":
		return fault.New(fault.Invalid, "--roles=%s without %s: say with --archive where both of these roles have the archives: a bucket, or a directory that both of them see; "+
			"or let one process have both", l.Roles, missing(roleCoordinator|roleArchivist))
	}
	if l.Advertise != "" {
		if u, err := url.Parse(l.Advertise); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" || u.User != nil {
			return fault.New(fault.Invalid, "--advertise %q: give a URL like http://HOST:PORT", l.Advertise)
		}
	}
	return nil
}
