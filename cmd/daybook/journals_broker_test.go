package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/broker"
	"github.com/daybook-dev/daybook/journal/broker/engine/disklog"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// brokerKeys sign the tokens of remoteBroker.
const brokerKeys = "c2VjcmV0IG9mIHRoZSBicm9rZXI="

// remoteBroker starts a broker that wants tokens and is not the data directory's, and returns its address.
func remoteBroker(t *testing.T, keys *auth.Keys) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + lis.Addr().String()
	log, err := disklog.Open(t.Context(), t.TempDir(), disklog.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close(t.Context()) })
	b, err := broker.New(t.Context(), broker.Config{
		Engine: log, ID: &protocol.ProcessSpec_ID{Zone: "far", Suffix: "broker"}, Endpoint: protocol.Endpoint(url), Callers: keys,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	protocol.RegisterJournalServer(server, b)
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	t.Cleanup(func() {
		_ = b.Close(t.Context())
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return url
}

func TestJournalsOfAnotherBroker(t *testing.T) {
	keys, err := auth.ParseKeys(brokerKeys)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DAYBOOK_SERVER", "")
	t.Setenv("DAYBOOK_BROKER", remoteBroker(t, keys))
	token := func(c auth.Capability, selector string) string {
		s, err := protocol.ParseLabelSelector(selector)
		if err != nil {
			t.Fatal(err)
		}
		text, err := keys.Sign(auth.Claims{Capability: c, Selector: s, Issued: time.Now(), Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	s := &journalsShell{t: t, dir: t.TempDir()}
	refused := func(kind fault.Kind, text, stdin string, args ...string) {
		t.Helper()
		out, err := s.run(stdin, args...)
		if !fault.Is(err, kind) || !strings.Contains(err.Error(), text) || out != "" {
			t.Errorf("%q: %v (%v), printed %q", args, err, fault.KindOf(err), out)
		}
	}
	const hint = "give --broker-auth-token or --broker-auth-keys"
	refused(fault.Unauthenticated, hint, "", "list")
	refused(fault.Unauthenticated, hint, "", "list", "--watch")
	refused(fault.Unauthenticated, hint, "", "read", "-l", "name=acme/one1", "--follow")
	refused(fault.Unauthenticated, hint, "x", "append", "-l", "name=acme/one1")

	t.Setenv("DAYBOOK_BROKER_AUTH_KEYS", brokerKeys)
	s.must("2 created", flowSpecs, "apply")
	s.must("", "content", "append", "-l", "name=acme/one1")
	t.Setenv("DAYBOOK_BROKER_AUTH_KEYS", "")

	t.Setenv("DAYBOOK_BROKER_AUTH_TOKEN", token(auth.List|auth.Read, "env=prod"))
	if got := s.must("", "", "list", "--replicas"); got != "NAME       REPLICAS\nacme/one1  broker\n" {
		t.Errorf("list %q", got)
	}
	if got := s.must("", "", "read", "-l", "name:prefix=acme/"); got != "content" {
		t.Errorf("read %q", got)
	}
	refused(fault.Unauthenticated, "give a token that allows it", "x", "append", "-l", "name=acme/one1")
	refused(fault.Unauthenticated, "appended: 0 records", "x\n", "append", "-l", "name=acme/one1", "-f", "lines")
	refused(fault.NotFound, "no journal matches", "x", "append", "-l", "name=acme/two2")
	refused(fault.Unauthenticated, "nothing was changed", "name: acme/one1\ndelete: true\nrevision: -1\n", "apply")

	t.Setenv("DAYBOOK_BROKER", "localhost:1")
	refused(fault.Invalid, "give http://HOST:PORT", "", "list")
}

func TestApplyManyJournals(t *testing.T) {
	t.Setenv("DAYBOOK_SERVER", "")
	t.Setenv("DAYBOOK_BROKER", remoteBroker(t, nil))
	s := &journalsShell{t: t, dir: t.TempDir()}
	const n = 1600 // More than a selector may name.
	specs := "name: many/\nreplication: 1\nfragment: {length: 65536, compression_codec: NONE, refresh_interval: 1m}\nchildren:\n"
	for i := range n {
		specs += fmt.Sprintf("- name: many/%s-%04d\n", strings.Repeat("j", 40), n-i)
	}
	s.must("1600 created", specs, "apply")
	out, err := s.run(specs, "apply", "--dry-run")
	if !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "1600 of 1600 journals are not as the file says") || strings.Count(out, "\n! many/") != n {
		t.Errorf("%v, printed %d bytes", err, len(out))
	}
	if _, err := s.run(specs, "apply"); err == nil || !strings.Contains(err.Error(), "and 1590 more") || len(err.Error()) > 2000 {
		t.Errorf("%.3000v", err)
	}
	// The last but one part has a conflict.
	yaml := s.must("", "", "list", "-o", "yaml")
	at := strings.LastIndex(yaml, "- name: many/")
	yaml = strings.Replace(yaml[:at], "NONE", "GZIP", 1) + "- name: many/another\n" + yaml[at:]
	yaml = regexp.MustCompile(`-1550\n  revision: \d+`).ReplaceAllString(yaml, "-1550\n  revision: 7")
	_, err = s.run(yaml, "apply", "--max-txn-size", "100")
	if !fault.Is(err, fault.Precondition) || !strings.Contains(err.Error(), "the first 1500 of 1601 journals") || !strings.Contains(err.Error(), "the file says 7") {
		t.Errorf("%v", err)
	}
	s.must("1 not there anyway", "name: many/none\ndelete: true\nrevision: -1\n", "apply")
	yaml = s.must("", "", "list", "-o", "yaml")
	s.must("1600 deleted", strings.Replace(yaml, "name: many/\n", "name: many/\ndelete: true\n", 1), "apply")
	if got := s.must("", "", "list", "-o", "yaml"); got != "{}\n" {
		t.Errorf("list %q", got)
	}
	if _, err := s.run("{}\n", "apply"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "there are no specs") {
		t.Errorf("%v", err)
	}
}

// Errors say on which line they are, whoever finds them.
func TestApplyErrors(t *testing.T) {
	t.Setenv("DAYBOOK_SERVER", "")
	t.Setenv("DAYBOOK_BROKER", remoteBroker(t, nil))
	s := &journalsShell{t: t, dir: t.TempDir()}
	for specs, want := range map[string]string{
		"name: a/\nchildren:\n- name: a/bcd\n- name: b/bcd\n":      "line 4: ",
		"name: a/bcd\nreplication: 1\nretention: 1h\n":             `line 3: there is no key "retention"`,
		"name: a/\nchildren:\n- name: a/bcd\n":                     "line 3: journal a/bcd: replication 0",
		"# x\nname: a/bcd\ndelete: true\nrevision: -2\n":           "line 2: journal a/bcd: ",
		flowSpecs + "- name: acme/three\n  max_append_rate: -1\n":  "line 9: journal acme/three: ",
		strings.Repeat("#", 64<<20) + "\nname: a/bcd\n":            "too long",
		"name: a/bcd\nreplication: 1\nfragment: {length: 1.5GB}\n": `line 3: "1.5GB" is not a number`,
	} {
		for _, args := range [][]string{{"apply"}, {"apply", "--dry-run"}} {
			if _, err := s.run(specs, args...); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%.60q: %v", specs, err)
			}
		}
	}
}

// A listing is the same text each time, so that it can be compared.
func TestListingJSON(t *testing.T) {
	list := &protocol.ListResponse{Journals: []*protocol.ListResponse_Journal{{Spec: &protocol.JournalSpec{Name: "a/bcd", Replication: 2}, ModRevision: 3}}}
	first, err := listingJSON(list)
	if err != nil || !json.Valid(first) || strings.ContainsAny(string(first[:len(first)-1]), " \n") {
		t.Fatalf("%s, %v", first, err)
	}
	for range 20 {
		if again, err := listingJSON(list); err != nil || string(again) != string(first) {
			t.Fatalf("%s, %v", again, err)
		}
	}
}
