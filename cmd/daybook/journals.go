package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/auth"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// journalsCmd is the family of commands for journals themselves, Daybook's own and those of other brokers.
type journalsCmd struct {
	List        journalsListCmd        `cmd:"" help:"List journals."`
	Apply       journalsApplyCmd       `cmd:"" help:"Create, change and delete journals as a file says."`
	Edit        journalsEditCmd        `cmd:"" help:"Change journals in an editor."`
	Read        journalsReadCmd        `cmd:"" help:"Print the content of journals."`
	Append      journalsAppendCmd      `cmd:"" help:"Append what comes on stdin."`
	Fragments   journalsFragmentsCmd   `cmd:"" help:"List the fragments that journals are kept in."`
	Prune       journalsPruneCmd       `cmd:"" help:"Delete the stored fragments that are past their retention."`
	Suspend     journalsSuspendCmd     `cmd:"" help:"Suspend journals that nobody appends to."`
	ResetHead   journalsResetHeadCmd   `cmd:"" name:"reset-head" help:"Make journals writable again whose brokers have lost the end of them."`
	StoreHealth journalsStoreHealthCmd `cmd:"" name:"store-health" help:"Check that a broker can use a store."`
}

// connectLimit bounds how long a command waits for a broker to be there.
const connectLimit = 30 * time.Second

// storeHealthLimit leaves the broker the time for one check, which takes up to a minute.
const storeHealthLimit = 90 * time.Second

// journalsFlags are the flags of every command that talks to brokers.
type journalsFlags struct {
	serverFlags
	Broker    string `help:"Address of another broker: http://HOST:PORT, https://HOST:PORT or unix://localhost/PATH; by default the server's." env:"DAYBOOK_BROKER" placeholder:"URL"`
	Zone      string `help:"Zone of this machine; brokers in it are preferred." env:"DAYBOOK_ZONE" default:"local" placeholder:"ZONE"`
	AuthKeys  string `help:"Keys that sign tokens for the broker, in base64." name:"broker-auth-keys" env:"DAYBOOK_BROKER_AUTH_KEYS" placeholder:"KEYS"`
	AuthToken string `help:"Token for the broker." name:"broker-auth-token" env:"DAYBOOK_BROKER_AUTH_TOKEN" placeholder:"TOKEN"`
	CAFile    string `help:"Certificates that vouch for the broker's, in PEM; by default the system's." name:"broker-ca-file" env:"DAYBOOK_BROKER_CA_FILE" placeholder:"FILE" type:"existingfile"`
}

// open returns a client of the broker, and what closes it.
func (f *journalsFlags) open(e *env) (protocol.RoutedJournalClient, func() error, error) {
	authorizer, err := f.authorizer()
	if err != nil {
		return nil, nil, err
	}
	if f.Broker == "" {
		l, err := f.openLink(e.ctx, e.log)
		if err != nil {
			return nil, nil, err
		}
		jc := journalClient(l.conn)
		if authorizer != nil {
			jc = protocol.NewRoutedJournalClient(auth.NewClient(jc, authorizer), jc)
		}
		return jc, func() error { return l.Close(context.WithoutCancel(e.ctx)) }, nil
	}
	cfg := client.DialConfig{Zone: f.Zone, Authorizer: authorizer, Router: client.NewRouteCache(4096, time.Minute)}
	if f.CAFile != "" {
		pem, err := os.ReadFile(f.CAFile)
		if err != nil {
			return nil, nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, nil, fault.New(fault.Invalid, "%s has no certificate", f.CAFile)
		}
		cfg.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	c, err := client.Dial(protocol.Endpoint(f.Broker), cfg)
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "broker %q: %w; give http://HOST:PORT", f.Broker, err)
	}
	return c, c.Close, nil
}

// fileRoot returns the directory of the file:// stores: that of the flag, or that of the server of the data directory.
func (f *journalsFlags) fileRoot(flag string) (string, error) {
	if flag != "" || f.Broker != "" || f.Server != "" {
		return flag, nil
	}
	dir, err := f.dataFlags.open()
	if err != nil {
		return "", err
	}
	return dir.Join("fragments"), nil
}

func (f *journalsFlags) authorizer() (auth.Authorizer, error) {
	switch {
	case f.AuthKeys != "":
		return auth.ParseKeys(f.AuthKeys)
	case f.AuthToken != "":
		return auth.Token(f.AuthToken), nil
	}
	return nil, nil
}

// selectFlags say which journals are meant.
type selectFlags struct {
	Selector string `help:"Journals to use, by label: name=acme/orders, name:prefix=acme/, 'env in (prod, qa), !deprecated'." short:"l" required:"" placeholder:"SELECTOR"`
}

func (f *selectFlags) selector() (*protocol.LabelSelector, error) { return parseSelector(f.Selector) }

func parseSelector(text string) (*protocol.LabelSelector, error) {
	selector, err := protocol.ParseLabelSelector(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w; write name=acme/orders, name:prefix=acme/ or 'env in (prod, qa), !deprecated'", err)
	}
	return selector, nil
}

// selected lists the journals. That there are none is an error.
func (f *selectFlags) selected(ctx context.Context, jc protocol.JournalClient) ([]*protocol.ListResponse_Journal, error) {
	selector, err := f.selector()
	if err != nil {
		return nil, err
	}
	list, err := listJournals(ctx, jc, selector)
	if err == nil && len(list.GetJournals()) == 0 {
		err = fault.New(fault.NotFound, "no journal matches %q; daybook journals list shows what there is", f.Selector)
	}
	return list.GetJournals(), err
}

func listJournals(ctx context.Context, jc protocol.JournalClient, selector *protocol.LabelSelector) (*protocol.ListResponse, error) {
	limited, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	list, err := client.ListAllJournals(limited, jc, &protocol.ListRequest{Selector: selector})
	switch {
	case err == nil:
		return list, nil
	case ctx.Err() == nil && limited.Err() != nil:
		return nil, fault.New(fault.Deadline, "list journals: no broker has answered within %v; is there one at the address of --broker or --server?", connectLimit)
	case fault.Is(err, fault.Unauthenticated), fault.Is(err, fault.Denied):
		return nil, fmt.Errorf("list journals: %w; give --broker-auth-token or --broker-auth-keys", err)
	}
	return nil, fmt.Errorf("list journals: %w", err)
}

// namedJournals lists the journals of the given names, as many at once as a selector may have.
func namedJournals(ctx context.Context, jc protocol.JournalClient, names []string) (map[string]*protocol.ListResponse_Journal, error) {
	const most = 32 << 10 // Bytes of names; brokers refuse long selectors.
	byName := make(map[string]*protocol.ListResponse_Journal)
	for len(names) != 0 {
		include, size := new(protocol.LabelSet), 0
		for len(names) != 0 && (size == 0 || size+len(names[0]) <= most) {
			include.AddValue(protocol.LabelName, names[0])
			size += len(names[0]) + len(protocol.LabelName)
			names = names[1:]
		}
		list, err := listJournals(ctx, jc, &protocol.LabelSelector{Include: include})
		if err != nil {
			return nil, err
		}
		for _, j := range list.GetJournals() {
			byName[j.GetSpec().GetName()] = j
		}
	}
	return byName, nil
}

// plural counts things.
func plural(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func isSuspended(s *protocol.JournalSpec) bool {
	return s.GetSuspend().GetLevel() == protocol.JournalSpec_Suspend_FULL
}

// eachActive calls do for each journal that is not fully suspended, several at once, and joins the errors. do is called with
// the journal's place in the list.
func eachActive(journals []*protocol.ListResponse_Journal, do func(i int, s *protocol.JournalSpec) error) error {
	const atOnce = 16
	var group sync.WaitGroup
	errs := make([]error, len(journals))
	slots := make(chan struct{}, atOnce)
	for i, j := range journals {
		if isSuspended(j.GetSpec()) {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := do(i, j.GetSpec()); err != nil {
				errs[i] = fmt.Errorf("%s: %w", j.GetSpec().GetName(), err)
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}
