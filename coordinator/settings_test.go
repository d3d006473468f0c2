package coordinator_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/coordinator"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/logs/types"
)

// claim registers a prefix of a project.
func (h *house) claim(project, prefix string, change ...func(*logdog.RegisterPrefixRequest)) error {
	r := &logdog.RegisterPrefixRequest{Project: project, Prefix: prefix}
	for _, fn := range change {
		fn(r)
	}
	_, err := h.Registration().RegisterPrefix(h.t.Context(), r)
	return err
}

func withSettings(t *testing.T, text string) func(*coordinator.Config) {
	return func(c *coordinator.Config) { c.Settings = settings(t, text) }
}

// A project that is not configured looks like one in which the caller may do nothing.
func TestProjectsThatAreNotConfigured(t *testing.T) {
	h := newHouse(t)
	absent := h.claim("absent", "p")
	wantCode(t, "anonymous", absent, codes.Unauthenticated)
	ctx := access.WithPrincipal(t.Context(), access.Principal{Name: "user:ada"})
	_, err := h.Registration().RegisterPrefix(ctx, &logdog.RegisterPrefixRequest{Project: "absent", Prefix: "p"})
	wantCode(t, "identified", err, codes.PermissionDenied)

	closed := newHouse(t, withSettings(t, "projects:\n"+
		"  local: {access: [{principals: [anonymous], roles: [writer]}]}\n  closed: {access: [{principals: ['user:bob'], roles: [writer]}]}"), func(c *coordinator.Config) {
		c.Access = access.NewRules(c.Settings, false)
	})
	forbidden, unknown := closed.claim("closed", "p"), closed.claim("absent", "p")
	if forbidden == nil || unknown == nil || forbidden.Error() != unknown.Error() {
		t.Errorf("what is forbidden is told from what is not there: %v, %v", forbidden, unknown)
	}
	wantCode(t, "malformed", closed.claim("ABSENT", "p"), codes.InvalidArgument)
}

// The least positive duration of service, project and request ends the time to register streams.
func TestPrefixWindowOfSettings(t *testing.T) {
	h := newHouse(t, withSettings(t, "service: {prefix_expiration: 24h}\nprojects:\n  local:\n  short: {prefix_expiration: 1h}\n  long: {prefix_expiration: 2d}"))
	none := newHouse(t, withSettings(t, "service: {prefix_expiration: 0}\nprojects:\n  local: {prefix_expiration: 1h}\n  open: {}"))
	for i, tc := range []struct {
		h       *house
		project types.Project
		asked   time.Duration
		want    time.Duration
	}{
		{h, "short", time.Minute, time.Minute},
		{h, "short", 0, time.Hour},
		{h, "short", -time.Minute, time.Hour},
		{h, "long", 0, dayLater},
		{h, "long", 100 * time.Hour, dayLater},
		{h, "local", 0, dayLater},
		{none, "open", time.Hour, time.Hour},
		{none, "open", 0, 0},
		{none, "open", -time.Hour, 0},
	} {
		name := fmt.Sprintf("w/%d", i)
		err := tc.h.claim(string(tc.project), name, func(r *logdog.RegisterPrefixRequest) { r.Expiration = durationpb.New(tc.asked) })
		if tc.want == 0 {
			wantCode(t, name, err, codes.InvalidArgument)
			continue
		}
		p, err2 := tc.h.store.Prefix(t.Context(), tc.project, types.StreamName(name))
		if err != nil || err2 != nil || p.Expires.Sub(p.Created) != tc.want {
			t.Errorf("%+v: %v, %v: %+v", tc, err, err2, p)
		}
	}
}

func TestQuotas(t *testing.T) {
	refused := func(t *testing.T, err error, quota string) {
		t.Helper()
		wantCode(t, quota, err, codes.ResourceExhausted)
		if err == nil || !strings.Contains(err.Error(), quota) {
			t.Errorf("the refusal does not name %s: %v", quota, err)
		}
	}
	t.Run("prefixes an hour", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, withSettings(t, "projects: {local: {quotas: {prefixes_per_hour: 3}}, other: }"))
			nonce := func(r *logdog.RegisterPrefixRequest) { r.OpNonce = bytes.Repeat([]byte{1}, 32) }
			time.Sleep(time.Minute)
			for _, name := range []string{"a", "b"} { // the house has a prefix, too
				if err := h.claim(project, name, nonce); err != nil {
					t.Fatal(err)
				}
			}
			refused(t, h.claim(project, "c"), "prefixes_per_hour")
			if err := h.claim(project, "b", nonce); err != nil {
				t.Errorf("a retry is refused: %v", err)
			}
			if err := h.claim("other", "c"); err != nil {
				t.Errorf("another project is refused: %v", err)
			}
			time.Sleep(time.Hour - time.Minute + time.Second)
			if err := h.claim(project, "c"); err != nil {
				t.Errorf("an hour after the first: %v", err)
			}
			refused(t, h.claim(project, "d"), "prefixes_per_hour")
		})
	})
	t.Run("open streams", func(t *testing.T) {
		h := newHouse(t, withSettings(t, "projects: {local: {quotas: {open_streams: 2}}}"))
		id := h.register("one")
		if err := h.claim(project, "a"); err != nil {
			t.Fatal(err)
		}
		h.register("two")
		refused(t, h.claim(project, "b"), "open_streams")
		h.register("three") // what is under way is not held up
		h.terminate(id, 0)
		refused(t, h.claim(project, "b"), "open_streams")
		h.terminate(h.register("two"), 0)
		if err := h.claim(project, "b"); err != nil {
			t.Errorf("with less streams: %v", err)
		}
	})
	t.Run("bytes a day", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, withSettings(t, "projects: {local: {quotas: {bytes_per_day: 12}}}"))
			h.terminate(h.register("one"), 0)
			h.archive("one", 0)
			time.Sleep(2 * time.Minute)
			if err := h.claim(project, "a"); err != nil {
				t.Fatal(err)
			}
			h.terminate(h.register("two"), 0)
			h.archive("two", 0)
			time.Sleep(2 * time.Minute)
			refused(t, h.claim(project, "b"), "bytes_per_day")
			time.Sleep(dayLater - 2*time.Minute)
			if err := h.claim(project, "b"); err != nil {
				t.Errorf("a day later: %v", err)
			}
		})
	})
}
