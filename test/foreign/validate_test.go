//go:build unix

package foreign

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"
)

// validate returns why a client does not take a response, or nil. The rules are those of the protocol's tables, which stock
// clients check before they look at anything else.
func validate(message string, o object, first bool) error {
	if s := o.num("status"); s < 0 || s > lastStatus {
		return fmt.Errorf("status %d", s)
	}
	// Of a snapshot and of a read, only the first message says who speaks.
	if message != "ListResponse" && message != "ReadResponse" || first {
		if err := header(o.sub("header")); err != nil {
			return fmt.Errorf("header: %w", err)
		}
	}
	switch message {
	case "ReadResponse":
		return readResponse(o)
	case "AppendResponse":
		return appendResponse(o)
	case "FragmentsResponse":
		return each(o.list("fragments"), func(f object) error {
			_, err := url.Parse(f.text("signed_url"))
			return errors.Join(err, fragment(f.sub("spec")))
		})
	case "ListResponse":
		return each(o.list("journals"), listed)
	}
	return nil
}

func each(list []object, f func(object) error) error {
	for i, o := range list {
		if err := f(o); err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
	}
	return nil
}

func header(o object) error {
	if o == nil {
		return errors.New("missing")
	}
	for _, name := range []string{"cluster_id", "member_id", "revision", "raft_term"} {
		if o.sub("etcd").num(name) == 0 {
			return fmt.Errorf("etcd.%s is zero", name)
		}
	}
	if o.sub("etcd").num("revision") < 0 {
		return errors.New("etcd.revision is negative")
	}
	return errors.Join(processID(o.sub("process_id")), route(o.sub("route")))
}

func token(s string, least, most int, more string) error {
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsNumber(r) && !strings.ContainsRune("-_+/."+more, r) {
			return fmt.Errorf("%q has %q", s, r)
		}
	}
	if len(s) < least || len(s) > most {
		return fmt.Errorf("%q has %d bytes", s, len(s))
	}
	return nil
}

func cleanPath(s string, least, most int) error {
	if s != "" && (path.Clean(s) != s || s[0] == '/') {
		return fmt.Errorf("%q is not a clean path", s)
	}
	return token(s, least, most, "=%")
}

func processID(o object) error {
	return errors.Join(token(o.text("zone"), 1, 32, ""), token(o.text("suffix"), 4, 128, ""))
}

func route(o object) error {
	members, endpoints := o.list("members"), o.texts("endpoints")
	if err := each(members, processID); err != nil {
		return err
	}
	for i := 1; i < len(members); i++ {
		x, y := members[i-1], members[i]
		if cmp.Or(cmp.Compare(x.text("zone"), y.text("zone")), cmp.Compare(x.text("suffix"), y.text("suffix"))) >= 0 {
			return errors.New("members are not in order")
		}
	}
	if p := o.num("primary"); p < -1 || p >= len(members) {
		return fmt.Errorf("primary %d of %d members", p, len(members))
	}
	if len(endpoints) != 0 && len(endpoints) != len(members) {
		return fmt.Errorf("%d endpoints of %d members", len(endpoints), len(members))
	}
	for _, e := range endpoints {
		if u, err := url.Parse(e); e != "" && (err != nil || !u.IsAbs() || u.Host == "") {
			return fmt.Errorf("endpoint %q", e)
		}
	}
	return nil
}

func fragment(o object) error {
	if o == nil {
		return errors.New("no fragment")
	}
	if begin, end := o.num("begin"), o.num("end"); begin < 0 || begin > end {
		return fmt.Errorf("fragment of [%d, %d)", begin, end)
	}
	if c := o.num("compression_codec"); c < 1 || c > 5 {
		return fmt.Errorf("codec %d", c)
	}
	return errors.Join(cleanPath(o.text("journal"), 4, 512), cleanPath(o.text("path_postfix"), 0, 512))
}

func readResponse(o object) error {
	if content := o.bytes("content"); o.has("content") {
		switch {
		case len(content) == 0:
			return errors.New("empty content")
		case len(content) > 1<<15-32:
			return fmt.Errorf("%d bytes of content", len(content))
		case o.num("status") != ok || o.has("header") || o.num("write_head") != 0 || o.has("fragment") || o.text("fragment_url") != "":
			return errors.New("content with something else")
		}
		return nil
	}
	f, offset := o.sub("fragment"), o.num("offset")
	if f == nil {
		if o.text("fragment_url") != "" || o.num("status") == ok && offset != 0 {
			return errors.New("an offset or URL without a fragment")
		}
		return nil
	}
	if offset < f.num("begin") || offset >= f.num("end") || o.num("write_head") < f.num("end") {
		return fmt.Errorf("offset %d, write head %d", offset, o.num("write_head"))
	}
	_, err := url.Parse(o.text("fragment_url"))
	return errors.Join(err, fragment(f))
}

func appendResponse(o object) error {
	s := o.num("status")
	if (s == ok || s == registerMismatch) && !o.has("registers") {
		return errors.New("no registers")
	}
	if s == ok {
		if err := fragment(o.sub("commit")); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
	}
	return labelSet(o.sub("registers"))
}

func labelSet(o object) error {
	labels := o.list("labels")
	if !slices.IsSortedFunc(labels, func(x, y object) int {
		return cmp.Or(cmp.Compare(x.text("name"), y.text("name")), cmp.Compare(x.text("value"), y.text("value")))
	}) {
		return errors.New("labels are not in order")
	}
	return each(labels, func(l object) error {
		return errors.Join(token(l.text("name"), 2, 64, ""), token(l.text("value"), 0, 1024, "=%"))
	})
}

func listed(o object) error {
	if o.num("mod_revision") <= 0 || o.num("create_revision") <= 0 {
		return fmt.Errorf("revisions %d, %d", o.num("mod_revision"), o.num("create_revision"))
	}
	s := o.sub("spec")
	f := s.sub("fragment")
	switch {
	case s.num("replication") < 1 || s.num("replication") > 5:
		return fmt.Errorf("replication %d", s.num("replication"))
	case f.num("length") < 1<<10 || f.num("length") > 1<<34:
		return fmt.Errorf("length %d", f.num("length"))
	case f.num("compression_codec") < 1 || f.num("compression_codec") > 5:
		return fmt.Errorf("codec %d", f.num("compression_codec"))
	case f.sub("refresh_interval").num("seconds") < 1:
		return errors.New("no refresh interval")
	}
	return errors.Join(cleanPath(s.text("name"), 4, 512), labelSet(s.sub("labels")), route(o.sub("route")))
}
