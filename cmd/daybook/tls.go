package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/internal/fault"
)

// doorFlags say where a server listens, and who may come in.
type doorFlags struct {
	Listen   string `help:"Address to listen on, ${default} unless said; port 0 is any free one." default:"${listen}" placeholder:"HOST:PORT"`
	TLSCert  string `help:"Certificate for TLS, in PEM, with those between it and its root. Taken anew when the file changes." name:"tls-cert" env:"DAYBOOK_TLS_CERT" placeholder:"FILE" type:"path"`
	TLSKey   string `help:"Key of the certificate, in PEM." name:"tls-key" env:"DAYBOOK_TLS_KEY" placeholder:"FILE" type:"path"`
	Auth     bool   `help:"Demand a token of every caller, also on loopback. Elsewhere, and where the configuration has access rules, it is always so; see docs/access.md." env:"DAYBOOK_AUTH"`
	Insecure bool   `help:"Serve beyond loopback without TLS or without demanding tokens: whoever reaches the address may read, and without --auth do, everything." env:"DAYBOOK_INSECURE"`
}

// check refuses to be open to others by accident.
func (f *doorFlags) check() error {
	host, _, err := net.SplitHostPort(f.Listen)
	switch {
	case err != nil:
		return fault.New(fault.Invalid, "--listen %q: %w; give HOST:PORT", f.Listen, err)
	case (f.TLSCert == "") != (f.TLSKey == ""):
		return fault.New(fault.Invalid, "--tls-cert and --tls-key go together; give both")
	case isLoopback(host), f.Insecure, f.TLSCert != "":
		return nil
	}
	return fault.New(fault.Invalid, "--listen %q: others would reach this server, and tokens and logs would go there in plaintext; "+
		"give --tls-cert and --tls-key, or listen on 127.0.0.1, or say --insecure if the network is yours alone", f.Listen)
}

// demandsTokens reports whether callers need tokens even if the configuration has no access rules.
func (f *doorFlags) demandsTokens() bool {
	host, _, err := net.SplitHostPort(f.Listen)
	return f.Auth || !f.Insecure && (err != nil || !isLoopback(host))
}

// serverTLS returns the config of a server with the certificate of the flags; nil without one.
func (f *doorFlags) serverTLS(log *slog.Logger) (*tls.Config, error) {
	if f.TLSCert == "" {
		return nil, nil
	}
	c := &certificate{cert: f.TLSCert, key: f.TLSKey, log: log}
	if err := c.load(); err != nil {
		return nil, fault.New(fault.Invalid, "load the certificate: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}, nil
}

// peerFlags say how the processes of a system know each other.
type peerFlags struct {
	Token string `help:"Token of the role service, which this process shows to those at --coordinator and --journals." env:"DAYBOOK_TOKEN" placeholder:"TOKEN"`
	TLSCA string `help:"Certificates to trust instead of the system's, in PEM." name:"tls-ca" env:"DAYBOOK_TLS_CA" placeholder:"FILE" type:"path"`
}

// options returns those of a connection to another process of the system.
func (f peerFlags) options(to client.Server, c *callers) ([]grpc.DialOption, error) {
	token := strings.TrimSpace(f.Token)
	if err := to.CheckToken(token, false); err != nil {
		return nil, err
	}
	ca := f.TLSCA
	if !to.TLS {
		ca = ""
	}
	return to.Options(func(ctx context.Context) string { return c.elsewhere(ctx, token) }, ca)
}

// transport returns how requests are passed on to other processes of the system.
func (f peerFlags) transport() (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	if f.TLSCA == "" {
		return t, nil
	}
	var err error
	t.TLSClientConfig, err = client.TLS(f.TLSCA)
	return t, err
}

func isLoopback(host string) bool {
	ip := net.ParseIP(trimBrackets(host))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// lookAgain is how long a certificate is used before its files are looked at again.
const lookAgain = time.Second

// certificate is a certificate in files. When they change, it changes; until both fit together again, it stays what it was.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu     sync.Mutex
	looked time.Time
	seen   [2]sight
	now    *tls.Certificate
	told   string // the last failure that was logged
}

// sight is what tells one version of a file from another.
type sight struct {
	size    int64
	changed time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < lookAgain {
		return c.now, nil
	}
	switch err := c.look(); {
	case err == nil:
		c.told = ""
	case err.Error() != c.told:
		c.told = err.Error()
		c.log.Error("the certificate cannot be taken anew; the one before stays in use", "error", err)
	}
	return c.now, nil
}

func (c *certificate) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.look()
}

// look takes the files anew if they have changed. The caller holds c.mu.
func (c *certificate) look() error {
	c.looked = time.Now()
	var seen [2]sight
	for i, name := range []string{c.cert, c.key} {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		seen[i] = sight{info.Size(), info.ModTime()}
	}
	if seen == c.seen {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", c.cert, c.key, err)
	}
	if c.now != nil {
		c.log.Info("new certificate", "file", c.cert, "subject", pair.Leaf.Subject.String(), "until", pair.Leaf.NotAfter)
	}
	c.seen, c.now = seen, &pair
	return nil
}
