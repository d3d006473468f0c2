package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
)

type journalsReadCmd struct {
	journalsFlags
	selectFlags
	Follow     bool   `help:"Go on with what is appended, also to journals that come later, until interrupted." short:"f"`
	Tail       bool   `help:"Begin at the end, as --offset=-1 does." xor:"begin"`
	Offset     int64  `help:"Begin at this offset." xor:"begin" placeholder:"N"`
	End        int64  `help:"End before this offset." placeholder:"N"`
	From       string `help:"Leave out fragments stored before this time: 2006-01-02T15:04:05Z, Unix seconds, or a duration ago such as 90m." placeholder:"TIME"`
	Output     string `help:"Write to a file." short:"o" default:"-" placeholder:"FILE"`
	Offsets    string `help:"Begin each journal where this file says: a JSON object of names and offsets." placeholder:"FILE" type:"existingfile"`
	OffsetsOut string `help:"Write where each journal ended, for --offsets of the next time." placeholder:"FILE"`
	Direct     bool   `help:"Fetch stored fragments from their stores, where these can be reached by URL, not through the broker."`
	FileRoot   string `help:"With --direct: the directory of file:// stores of a broker that gives their URLs, which Daybook's does not." placeholder:"DIR" type:"existingdir"`
}

func (c *journalsReadCmd) Help() string {
	return "Of several journals, whole appends are printed, one journal's after the other's in any order. " +
		"What is not there any more, because its retention is over, is left out and told on stderr. " +
		"Journals that come while following are read from their beginning.\n\n" +
		"  daybook journals read -l name=acme/orders > orders\n" +
		"  daybook journals read -l name:prefix=acme/ --tail --follow\n" +
		"  daybook journals read -l name=acme/orders --offsets-out at.json --output today\n" +
		"  daybook journals read -l name=acme/orders --offsets at.json --offsets-out at.json --output tomorrow"
}

func (c *journalsReadCmd) Run(e *env) (err error) {
	switch {
	case c.Offset < -1:
		return fault.New(fault.Invalid, "--offset %d is not an offset; -1 is the end", c.Offset)
	case c.End < 0 || c.End != 0 && c.End <= c.Offset:
		return fault.New(fault.Invalid, "--end %d does not lie behind --offset %d", c.End, c.Offset)
	}
	r := &journalsReading{cmd: c, env: e, next: make(map[string]int64), running: make(map[string]*runningRead), out: e.stdout}
	if r.since, err = parseSince(c.From, time.Now()); err != nil {
		return err
	}
	if c.Offsets != "" {
		if err := r.loadOffsets(); err != nil {
			return err
		}
	}
	if c.FileRoot != "" {
		if !c.Direct {
			return fault.New(fault.Invalid, "--file-root is for --direct; without it the broker fetches what is stored")
		}
		defer client.InstallFileTransport(c.FileRoot)()
	}
	jc, closeClient, err := c.open(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeClient()) }()
	r.jc = jc
	if c.Output != "-" {
		f, err := os.Create(c.Output)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		r.out = f
	}
	r.progress = newProgress(e, r.out)
	if c.Follow {
		err = r.follow()
	} else {
		err = r.once()
	}
	r.progress.end()
	if c.OffsetsOut != "" {
		err = errors.Join(err, r.saveOffsets())
	}
	if err == nil && !c.Follow && e.ctx.Err() != nil {
		err = fault.New(fault.Canceled, "interrupted before the end")
	}
	return err
}

// parseSince returns Unix seconds.
func parseSince(s string, now time.Time) (int64, error) {
	if s == "" {
		return 0, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return n, nil
	}
	if d, err := time.ParseDuration(strings.TrimSuffix(s, " ago")); err == nil && d >= 0 {
		return now.Add(-d).Unix(), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0, fault.New(fault.Invalid, "%q is not a time; give 2006-01-02T15:04:05Z, Unix seconds, or a duration ago such as 90m", s)
	}
	return t.Unix(), nil
}

func (r *journalsReading) loadOffsets() error {
	b, err := os.ReadFile(r.cmd.Offsets)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &r.next); err != nil {
		return fault.New(fault.Invalid, "%s: %w; give an object of names and offsets, as --offsets-out writes", r.cmd.Offsets, err)
	}
	for name, offset := range r.next {
		if offset < -1 {
			return fault.New(fault.Invalid, "%s: %d is not an offset of %s; -1 is the end", r.cmd.Offsets, offset, name)
		}
	}
	return nil
}

// saveOffsets replaces the file at once, so that it may be the one that was read.
func (r *journalsReading) saveOffsets() (err error) {
	b, err := json.MarshalIndent(r.next, "", "  ")
	if err != nil {
		return err
	}
	temp := r.cmd.OffsetsOut + ".temp"
	f, err := os.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(temp, r.cmd.OffsetsOut)
}

// runningRead is a journal that is being read.
type runningRead struct {
	created int64 // Which of the journals that had this name.
	stop    context.CancelFunc
	done    chan struct{}
}

func (r *runningRead) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (r *runningRead) end() {
	r.stop()
	<-r.done
}
