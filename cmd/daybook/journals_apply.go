package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/spectree"
)

type journalsApplyCmd struct {
	journalsFlags
	Specs   string `help:"File with the specs, in YAML as daybook journals list -o yaml prints them." default:"-" placeholder:"FILE"`
	DryRun  bool   `help:"Show what would change, and change nothing."`
	MaxSize int    `help:"Change at most so many journals at once; 0 changes all or none. Brokers on etcd take up to 128." name:"max-txn-size" default:"0" placeholder:"N"`
}

func (c *journalsApplyCmd) Help() string {
	return "A journal is changed only if it still has the revision that the file says; none means that it must not exist, and -1 that it does not matter. " +
		"delete: true deletes it. A journal whose suspend is left out stays suspended or not as it is."
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

func readInput(e *env, path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(e.stdin)
	}
	return os.ReadFile(path)
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
		change := l.Change()
		if err := change.Validate(); err != nil {
			return nil, fault.New(fault.Invalid, "journal %s: %w", l.Spec.GetName(), err)
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

// show prints a diff.
func (p *journalsPlan) show(w io.Writer) error {
	var out strings.Builder
	for _, l := range p.leaves {
		current := p.current[l.Spec.GetName()]
		before, err := spectree.Text(current.GetSpec())
		if err != nil {
			return err
		}
		after, what := "", "delete"
		if !l.Delete {
			if after, err = spectree.Text(l.Spec); err != nil {
				return err
			}
			what = "change"
		}
		if current == nil && !l.Delete {
			what = "create"
		}
		diff := spectree.Diff(before, after)
		if diff == "" {
			what = "keep"
		}
		fmt.Fprintf(&out, "%s %s\n%s", what, l.Spec.GetName(), diff)
		if conflict := conflictOf(l, current); conflict != "" {
			fmt.Fprintf(&out, "! %s\n", conflict)
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// conflictOf says why a change will not be made, or nothing.
func conflictOf(l spectree.Leaf, current *protocol.ListResponse_Journal) string {
	name := l.Spec.GetName()
	switch {
	case l.Revision < 0 || l.Revision == current.GetModRevision():
		return ""
	case current == nil:
		return fmt.Sprintf("%s does not exist; the file says revision %d", name, l.Revision)
	case l.Revision == 0:
		return fmt.Sprintf("%s exists at revision %d; the file says that it does not", name, current.GetModRevision())
	}
	return fmt.Sprintf("%s is at revision %d; the file says %d", name, current.GetModRevision(), l.Revision)
}

func (p *journalsPlan) apply(e *env, jc protocol.JournalClient, size int) error {
	ctx, cancel := context.WithTimeout(e.ctx, connectLimit)
	defer cancel()
	resp, err := client.ApplyJournalsInBatches(ctx, jc, p.request, size)
	if resp.GetStatus() == protocol.Status_ETCD_TRANSACTION_FAILED {
		return p.conflicts(e.ctx, jc, size)
	}
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	_, err = fmt.Fprintf(e.stdout, "daybook: %d journals applied, at revision %d\n", len(p.leaves), resp.GetHeader().GetEtcd().GetRevision())
	return err
}

// conflicts says which journals are not as the file says, since the broker does not.
func (p *journalsPlan) conflicts(ctx context.Context, jc protocol.JournalClient, size int) error {
	current, err := namedJournals(ctx, jc, p.names())
	if err != nil {
		return err
	}
	var all []string
	for _, l := range p.leaves {
		if c := conflictOf(l, current[l.Spec.GetName()]); c != "" {
			all = append(all, c)
		}
	}
	done := "nothing was changed"
	if size > 0 {
		done = "what came before in the file may have been changed"
	}
	if len(all) == 0 {
		return fault.New(fault.Precondition, "journals changed meanwhile; %s; try again", done)
	}
	return fault.New(fault.Precondition, "%s: %s; list them again and repeat the change", done, strings.Join(all, "; "))
}
