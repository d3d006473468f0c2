package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/internal/datadir"
)

// shutdownLimit bounds an ordered shutdown; what is not done then is done after the next start.
const shutdownLimit = 15 * time.Second

type serveCmd struct {
	dataFlags
	layout
	doorFlags
	peerFlags
}

func (c *serveCmd) Help() string {
	return "Serves gRPC, JSON and pages on one port. SIGTERM and SIGINT shut it down in order; what was acknowledged is safe whatever happens.\n\n" +
		"Without other flags, everything is in this process and in its data directory. docs/running.md tells how to run roles as processes of their own, on " +
		"databases and buckets that they share. Each process has a data directory of its own. URLs with passwords are better given by the environment.\n\n" +
		"Below systemd it tells when it is ready. /readyz says which role cannot work now, and why."
}

func (c *serveCmd) Run(e *env) error {
	if err := errors.Join(c.doorFlags.check(), c.layout.check()); err != nil {
		return err
	}
	tls, err := c.serverTLS(e.log)
	if err != nil {
		return err
	}
	dir, err := c.open()
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(e.ctx, 2*shutdownLimit)
	defer cancel()
	hold, err := dir.Succeed(wait, askToGiveWay)
	if err != nil {
		return err
	}
	sys, err := openAndAnnounce(e.ctx, systemConfig{
		layout: c.layout, Dir: dir, Kind: datadir.Server, TLS: tls, DemandTokens: c.demandsTokens(), Peers: c.peerFlags, Log: e.log,
	}, hold, c.Listen)
	if err != nil {
		return errors.Join(err, hold.Release())
	}
	fmt.Fprintf(e.stdout, "daybook: serving on %s\n", client.Server{Host: sys.Address(), TLS: tls != nil}.URL())
	notify(e.log, daemon.SdNotifyReady)
	resume := resumeSpools(e.ctx, spoolsFor(dir, nil), sys.Conn(), e.log)

	select {
	case <-e.ctx.Done():
	case <-sys.Done():
	}
	notify(e.log, daemon.SdNotifyStopping)
	failure := sys.Err()
	resume.stop()
	end, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	return errors.Join(failure, sys.Close(end), hold.Release())
}

// askToGiveWay asks a command that holds the directory to hand it over.
func askToGiveWay(ctx context.Context, who datadir.Holder) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+who.Address+"/handover", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+who.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("hand over: %s", resp.Status)
	}
	return nil
}
