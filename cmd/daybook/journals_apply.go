package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/spectree"
)

type journalsApplyCmd struct {
	journalsFlags
	Specs   string `help:"File with the specs, in YAML as daybook journals list -o yaml prints them; by default stdin." default:"-" placeholder:"FILE"`
	DryRun  bool   `help:"Show what would change, as a diff, and change nothing. It fails if apply would."`
	MaxSize int    `help:"Change at most so many journals at once; 0 changes all or none. Brokers on etcd take up to 128." name:"max-txn-size" default:"0" placeholder:"N"`
}

func (c *journalsApplyCmd) Help() string {
	return "A journal is changed only if it still has the revision that the file says; none means that it must not exist, and -1 that it does not matter. " +
		"delete: true deletes it; what its stores have of it stays there. A journal whose suspend is left out stays suspended or not as it is.\n\n" +
		"  daybook journals list -l name:prefix=acme/ -o yaml > acme.yaml\n" +
		"  daybook journals apply --specs acme.yaml --dry-run\n" +
		"  daybook journals apply --specs acme.yaml"
}

func (c *journalsApplyCmd) Run(e *env) (err error) {
	text, err := readInput(e, c.Specs)
	if err != nil {
		return err
	}
	tree, err := spectree.Parse(text)
	if err != nil {
		return err
	}
	jc, closeClient, err := c.open(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeClient()) }()
	p, err := planJournals(e.ctx, jc, tree)
	if err != nil {
		return err
	}
	if c.DryRun {
		return p.show(e.stdout)
	}
	return p.apply(e, jc, c.MaxSize)
}

// readInput returns specs, or so much of them that they will be refused.
func readInput(e *env, path string) ([]byte, error) {
	if path == "-" {
		if term.IsTerminal(int(e.stdin.Fd())) {
			fmt.Fprintln(e.stderr, "daybook: reading specs from the terminal; end with ^D")
		}
		return io.ReadAll(io.LimitReader(e.stdin, spectree.MaxText+1))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, spectree.MaxText+1))
}

// journalsPlan is what a tree of specs changes.
type journalsPlan struct {
	leaves  []spectree.Leaf
	request *protocol.ApplyRequest
	current map[string]*protocol.ListResponse_Journal
}

// planJournals compares a tree with what there is.
func planJournals(ctx context.Context, jc protocol.JournalClient, tree *spectree.Node) (*journalsPlan, error) {
	p := &journalsPlan{leaves: tree.Flatten(), request: new(protocol.ApplyRequest)}
	var err error
	if p.current, err = namedJournals(ctx, jc, p.names()); err != nil {
		return nil, err
	}
	for _, l := range p.leaves {
		if l.Spec.Suspend == nil {
			l.Spec.Suspend = p.current[l.Spec.GetName()].GetSpec().GetSuspend()
		}
		if !l.Delete {
			if err := l.Spec.Validate(); err != nil {
				return nil, fault.New(fault.Invalid, "line %d: journal %s: %w", l.Line, l.Spec.GetName(), err)
			}
		}
		change := l.Change()
		if err := change.Validate(); err != nil {
			return nil, fault.New(fault.Invalid, "line %d: journal %s: %w", l.Line, l.Spec.GetName(), err)
		}
		p.request.Changes = append(p.request.Changes, change)
	}
	return p, nil
}

func (p *journalsPlan) names() (names []string) {
	for _, l := range p.leaves {
		names = append(names, l.Spec.GetName())
	}
	return names
}

// show prints a diff. That there are conflicts is an error, after all of it.
func (p *journalsPlan) show(w io.Writer) error {
	out := bufio.NewWriter(w)
	conflicts := 0
	for _, l := range p.leaves {
		current := p.current[l.Spec.GetName()]
		diff, err := diffOf(l, current)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s %s\n%s", changeOf(l, current, diff), l.Spec.GetName(), diff)
		if conflict := conflictOf(l, current); conflict != "" {
			conflicts++
			fmt.Fprintf(out, "! %s\n", conflict)
		}
	}
	if err := out.Flush(); err != nil || conflicts == 0 {
		return err
	}
	return fault.New(fault.Precondition, "%d of %d journals are not as the file says, so apply would change nothing; "+listAgain, conflicts, len(p.leaves))
}

const listAgain = "take their revisions from daybook journals list -o yaml, or give revision: -1 to change them whatever they are"

func diffOf(l spectree.Leaf, current *protocol.ListResponse_Journal) (string, error) {
	before, err := spectree.Text(current.GetSpec())
	if err != nil || l.Delete {
		return spectree.Diff(before, ""), err
	}
	after, err := spectree.Text(l.Spec)
	return spectree.Diff(before, after), err
}

// changeOf names what becomes of a journal.
func changeOf(l spectree.Leaf, current *protocol.ListResponse_Journal, diff string) string {
	switch {
	case l.Delete && current == nil:
		return "absent"
	case l.Delete:
		return "delete"
	case current == nil:
		return "create"
	case diff == "":
		return "keep"
	}
	return "change"
}

// summary counts the changes that were planned.
func (p *journalsPlan) summary() (string, error) {
	count := make(map[string]int)
	for _, l := range p.leaves {
		current := p.current[l.Spec.GetName()]
		diff, err := diffOf(l, current)
		if err != nil {
			return "", err
		}
		count[changeOf(l, current, diff)]++
	}
	var parts []string
	for _, k := range []struct{ change, done string }{
		{"create", "created"}, {"change", "changed"}, {"delete", "deleted"}, {"keep", "as before"}, {"absent", "not there anyway"},
	} {
		if n := count[k.change]; n != 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, k.done))
		}
	}
	return strings.Join(parts, ", "), nil
}

// conflictOf says why a change will not be made, or nothing.
func conflictOf(l spectree.Leaf, current *protocol.ListResponse_Journal) string {
	name := l.Spec.GetName()
	switch {
	case l.Revision == -1 || l.Revision == current.GetModRevision():
		return ""
	case current == nil:
		return fmt.Sprintf("%s does not exist; the file says revision %d", name, l.Revision)
	case l.Revision == 0:
		return fmt.Sprintf("%s exists at revision %d; the file says that it does not", name, current.GetModRevision())
	}
	return fmt.Sprintf("%s is at revision %d; the file says %d", name, current.GetModRevision(), l.Revision)
}

// applyLimit bounds how long a broker may take for one request.
const applyLimit = time.Minute

// apply makes the changes, at most size at once.
func (p *journalsPlan) apply(e *env, jc protocol.JournalClient, size int) error {
	if size <= 0 {
		size = len(p.request.Changes)
	}
	summary, err := p.summary()
	if err != nil {
		return err
	}
	var resp *protocol.ApplyResponse
	done := 0
	for batch := range slices.Chunk(p.request.Changes, size) {
		ctx, cancel := context.WithTimeout(e.ctx, applyLimit)
		resp, err = client.ApplyJournals(ctx, jc, &protocol.ApplyRequest{Changes: batch})
		cancel()
		if err != nil {
			if resp.GetStatus() == protocol.Status_ETCD_TRANSACTION_FAILED {
				err = p.conflicts(e.ctx, jc, p.leaves[done:done+len(batch)])
			}
			if done == 0 {
				return fmt.Errorf("nothing was changed: %w", err)
			}
			return fmt.Errorf("the first %d of %d journals, up to %s, were changed, the others not: %w",
				done, len(p.leaves), p.leaves[done-1].Spec.GetName(), err)
		}
		done += len(batch)
	}
	_, err = fmt.Fprintf(e.stdout, "daybook: %s, at revision %d\n", summary, resp.GetHeader().GetEtcd().GetRevision())
	return err
}

// conflicts says which journals are not as the file says, since the broker does not.
func (p *journalsPlan) conflicts(ctx context.Context, jc protocol.JournalClient, leaves []spectree.Leaf) error {
	var names []string
	for _, l := range leaves {
		names = append(names, l.Spec.GetName())
	}
	current, err := namedJournals(ctx, jc, names)
	if err != nil {
		return err
	}
	const most = 10
	var all []string
	for _, l := range leaves {
		if c := conflictOf(l, current[l.Spec.GetName()]); c != "" {
			all = append(all, c)
		}
	}
	if len(all) > most {
		all = append(all[:most], fmt.Sprintf("and %d more", len(all)-most))
	}
	if len(all) == 0 {
		return fault.New(fault.Precondition, "journals changed meanwhile; try again")
	}
	return fault.New(fault.Precondition, "%s; "+listAgain, strings.Join(all, "; "))
}
