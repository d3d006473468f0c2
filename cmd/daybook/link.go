package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/internal/datadir"
	"github.com/daybook-dev/daybook/internal/fault"
)

// defaultListen is where a server listens unless told otherwise.
const defaultListen = "127.0.0.1:4660"

// dataFlags are the flags of every command that touches local data.
type dataFlags struct {
	Data string `help:"Data directory; by default below your data home." env:"DAYBOOK_DATA" placeholder:"DIR" type:"path"`
}

func (f *dataFlags) open() (*datadir.Dir, error) {
	path := f.Data
	if path == "" {
		var err error
		if path, err = datadir.Default(); err != nil {
			return nil, err
		}
	}
	return datadir.Open(path)
}

// serverFlags are the flags of every command that talks to a server.
type serverFlags struct {
	dataFlags
	Server   string `help:"Address of the server: HOST:PORT, or https://HOST:PORT; by default the one that serves the data directory, or none." env:"DAYBOOK_SERVER" placeholder:"ADDRESS"`
	Token    string `help:"Token to show to the server; by default the one that is kept for it, see docs/access.md." env:"DAYBOOK_TOKEN" placeholder:"TOKEN"`
	TLSCA    string `help:"Certificates to trust instead of the system's, in PEM." name:"tls-ca" env:"DAYBOOK_TLS_CA" placeholder:"FILE" type:"path"`
	Insecure bool   `help:"Send the token in plaintext, where others could read it."`
}

// named returns the server that the flags name; nil if they name none.
func (f *serverFlags) named() (*client.Server, error) {
	if f.Server == "" {
		return nil, nil
	}
	s, err := client.ParseServer(f.Server)
	return &s, err
}

// token returns what a server that was named is shown.
func (f *serverFlags) token(s client.Server) (string, error) {
	token := strings.TrimSpace(f.Token)
	if token == "" {
		var err error
		if token, err = s.SavedToken(); err != nil {
			return "", err
		}
	}
	return token, s.CheckToken(token, f.Insecure)
}

// link is the way to a server: to the one that was named; or to the one that serves the data directory; or, when nobody does, to
// one in this process, which gives way when a server starts. Each connection asks anew, so a server that was restarted
// elsewhere is found, and the place of one that died is taken.
type link struct {
	dir    *datadir.Dir
	server *client.Server // nil to use dir
	log    *slog.Logger
	conn   *grpc.ClientConn
	// token is what the server is shown. That of a holder becomes known when it is dialled.
	token atomic.Pointer[string]
	// tokenGiven says that the user has named it.
	tokenGiven bool
	// refused is closed when the server refuses a call because of who we are, or of a quota; refusal is why.
	refused     chan struct{}
	refusedOnce sync.Once
	refusal     error

	mu     sync.Mutex // held while a system is opened or closed
	sys    *system    // ours, if we are the holder
	hold   *datadir.Hold
	closed bool
	failed failedOpen
	given  sync.WaitGroup // systems that give way
}

// failedOpen is why the data directory could not be served, and until when that is not tried again. Meanwhile, another process may
// serve it.
type failedOpen struct {
	err   error
	pause time.Duration
	until time.Time
}

// A directory that cannot be served is left alone for a time that doubles from the first to the last.
const (
	firstOpenPause = time.Second
	lastOpenPause  = 30 * time.Second
)

// openLink opens the way to the server. Nothing is dialled yet, but if nobody serves the data directory this process does from
// now on. The link must be closed.
func (f *serverFlags) openLink(ctx context.Context, log *slog.Logger) (*link, error) {
	l, err := f.newLink(log)
	if err != nil {
		return nil, err
	}
	tell := time.AfterFunc(startLimit, func() {
		log.Warn("waiting for another process, which is about to serve the data directory", "directory", l.dir.Path())
	})
	defer tell.Stop()
	if _, err := l.Address(ctx); err != nil {
		return nil, errors.Join(err, l.Close(ctx))
	}
	return l, nil
}

// newLink is openLink, but does not look yet whether there is a server.
func (f *serverFlags) newLink(log *slog.Logger) (*link, error) {
	server, err := f.named()
	if err != nil {
		return nil, err
	}
	l := &link{server: server, log: log, refused: make(chan struct{})}
	options := []grpc.DialOption{client.Bearer(l.credential)}
	token := strings.TrimSpace(f.Token)
	if server != nil {
		if token, err = f.token(*server); err != nil {
			return nil, err
		}
		if options, err = server.Options(l.credential, f.TLSCA); err != nil {
			return nil, err
		}
	}
	l.token.Store(&token)
	l.tokenGiven = token != ""
	if l.dir, err = f.open(); err != nil {
		return nil, err
	}
	options = append(options, grpc.WithChainUnaryInterceptor(l.noticeRefusal), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.dial(ctx) }))
	if l.conn, err = client.Dial("passthrough:///daybook", options...); err != nil {
		return nil, err
	}
	return l, nil
}

// noticeRefusal remembers that the server does not let us in, or that a quota is used up. Those who send output try again, since that may change; the user is told.
func (l *link) noticeRefusal(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	switch fault.KindOf(err) {
	case fault.Unauthenticated, fault.Denied, fault.Exhausted:
		l.refusedOnce.Do(func() {
			l.refusal = fault.FromGRPC(err)
			close(l.refused)
		})
	}
	return err
}

// credential returns what the server is shown.
func (l *link) credential(context.Context) string { return *l.token.Load() }

// tokenFor returns what others are to show to the server as of now; empty if nothing.
func (l *link) tokenFor(ctx context.Context) string {
	if l.tokenGiven {
		return l.credential(ctx)
	}
	address, err := l.Address(ctx)
	h, ok := l.dir.Holder()
	if err != nil || !ok || h.Address != address || l.server != nil && l.server.TLS {
		return ""
	}
	return h.Token
}

// Address returns host:port of the server as of now. It becomes the server if there is none.
func (l *link) Address(ctx context.Context) (string, error) {
	if l.server != nil {
		return l.server.Host, nil
	}
	h, err := l.holder(ctx)
	return h.Address, err
}

// holder returns who serves the data directory as of now. We do if there is nobody.
func (l *link) holder(ctx context.Context) (datadir.Holder, error) {
	for {
		h, err := l.ourselves(ctx)
		if !errors.Is(err, datadir.ErrHeld) {
			return h, err
		}
		if h, ok := l.dir.Holder(); ok {
			return h, nil
		}
		select {
		case <-ctx.Done():
			return datadir.Holder{}, fmt.Errorf("find the server of %s: %w", l.dir.Path(), context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ourselves returns us, or ErrHeld if another process is the holder.
func (l *link) ourselves(ctx context.Context) (datadir.Holder, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return datadir.Holder{}, fault.New(fault.Canceled, "the way to the server is closed")
	case l.sys != nil:
		return l.sys.Holder(), nil
	}
	hold, err := l.dir.TryHold()
	if err != nil {
		return datadir.Holder{}, err
	}
	if l.failed.err != nil && time.Now().Before(l.failed.until) {
		return datadir.Holder{}, errors.Join(l.failed.err, hold.Release())
	}
	sys, err := openAndAnnounce(ctx, systemConfig{layout: embedded, Dir: l.dir, Kind: datadir.Command, Log: l.log}, hold, "")
	if err != nil {
		l.fail(ctx, err)
		return datadir.Holder{}, errors.Join(err, hold.Release())
	}
	l.failed = failedOpen{}
	l.sys, l.hold = sys, hold
	l.given.Go(func() { l.giveWay(sys) })
	return sys.Holder(), nil
}

// fail notes that we cannot serve the data directory, and tells it unless it was told before. The caller holds l.mu.
func (l *link) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if l.failed.err == nil || l.failed.err.Error() != err.Error() {
		l.log.Error("cannot serve the data directory; what was written stays in its spool", "directory", l.dir.Path(), "error", err)
	}
	pause := min(max(2*l.failed.pause, firstOpenPause), lastOpenPause)
	l.failed = failedOpen{err: err, pause: pause, until: time.Now().Add(pause)}
}

// giveWay closes our system when a server asks for the directory.
func (l *link) giveWay(sys *system) {
	select {
	case <-sys.Handover():
	case <-sys.Done():
		if err := sys.Err(); err != nil {
			l.log.Error("the server in this process cannot go on", "error", err)
		}
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sys != sys {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	if err := l.closeSystem(ctx); err != nil {
		l.log.Error("give way to a server", "error", err)
	}
}

// closeSystem closes our system and gives up the directory. The caller holds l.mu.
func (l *link) closeSystem(ctx context.Context) error {
	err := l.sys.Close(ctx)
	l.sys = nil
	return errors.Join(err, l.hold.Release())
}

func (l *link) dial(ctx context.Context) (net.Conn, error) {
	var h datadir.Holder
	if l.server == nil {
		var err error
		if h, err = l.holder(ctx); err != nil {
			return nil, err
		}
	} else if h, _ = l.dir.Holder(); l.server.TLS || h.Address != l.server.Host {
		h = datadir.Holder{Address: l.server.Host} // another server than that of the directory
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", h.Address)
	if err == nil && !l.tokenGiven {
		l.token.Store(&h.Token) // whoever may read the data directory may use it
	}
	return conn, err
}

// URL returns the address of the pages.
func (l *link) URL(ctx context.Context) (string, error) {
	if l.server != nil {
		return l.server.URL(), nil
	}
	h, err := l.holder(ctx)
	return cmp.Or(h.URL, "http://"+h.Address), err
}

// URLSoon is URL, but waits no longer than limit for another process that is about to serve the data directory.
func (l *link) URLSoon(ctx context.Context, limit time.Duration) (string, error) {
	if l.server == nil {
		if _, err := l.ourselves(ctx); err != nil && !errors.Is(err, datadir.ErrHeld) {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fault.New(fault.Deadline, "another process is to serve it, and does not"))
	defer cancel()
	return l.URL(ctx)
}

// Spools returns the directory of the spools of output that is meant for this server.
func (l *link) Spools() string { return spoolsFor(l.dir, l.server) }

// spoolsFor keeps apart what is meant for the server of the data directory, and for servers that were named.
func spoolsFor(d *datadir.Dir, server *client.Server) string {
	if server == nil {
		return d.Join("spool", "local")
	}
	return d.Join("spool", strings.NewReplacer(":", "_", "[", "", "]", "").Replace(server.Host))
}

// Close closes the connection, and our system if we have one, after it has finished what it can until ctx ends.
func (l *link) Close(ctx context.Context) error {
	var err error
	l.mu.Lock()
	l.closed = true
	if l.sys != nil {
		l.sys.Drain(ctx)
	}
	if l.conn != nil {
		err = l.conn.Close()
	}
	if l.sys != nil {
		err = errors.Join(err, l.closeSystem(ctx))
	}
	l.mu.Unlock()
	l.given.Wait()
	return err
}

// openAndAnnounce opens a system on a directory that we hold. It listens on listen, or if that is empty on the default address
// or, when that is taken, on any port of loopback.
func openAndAnnounce(ctx context.Context, c systemConfig, hold *datadir.Hold, listen string) (*system, error) {
	lis, err := listenOn(listen)
	if err != nil {
		return nil, err
	}
	c.Listener, c.Token = lis, rand.Text()
	if c.TLS != nil || !onLoopback(lis) {
		if c.Local, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, errors.Join(fmt.Errorf("listen on loopback: %w", err), lis.Close())
		}
	}
	sys, err := openSystem(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := hold.Announce(sys.Holder()); err != nil {
		return nil, errors.Join(err, sys.Close(ctx))
	}
	return sys, nil
}

func listenOn(address string) (net.Listener, error) {
	if address != "" {
		lis, err := net.Listen("tcp", address)
		if err != nil {
			return nil, fmt.Errorf("listen: %w; choose another address with --listen", err)
		}
		return lis, nil
	}
	if lis, err := net.Listen("tcp", defaultListen); err == nil {
		return lis, nil
	}
	return net.Listen("tcp", "127.0.0.1:0")
}
