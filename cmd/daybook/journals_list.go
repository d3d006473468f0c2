package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/spectree"
)

type journalsListCmd struct {
	journalsFlags
	Selector string   `help:"Journals to list, by label: name:prefix=acme/; by default all." short:"l" placeholder:"SELECTOR"`
	Format   string   `help:"table, yaml or json. yaml is what apply reads, with revisions that guard against changes meanwhile; json is one object." short:"o" enum:"table,yaml,json" default:"table"`
	Label    []string `help:"Show a label as a column; may be repeated." short:"L" placeholder:"LABEL"`
	Primary  bool     `help:"Show the primary broker, and <S> where a journal is suspended." short:"p"`
	Replicas bool     `help:"Show the brokers." short:"r"`
	RF       bool     `help:"Show how many brokers there should be." name:"rf"`
	Stores   bool     `help:"Show the store that new fragments go to."`
	Watch    bool     `help:"Print again whenever specs change, until interrupted."`
}

func (c *journalsListCmd) Help() string {
	return "Without --selector, all that the caller may see.\n\n" +
		"  daybook journals list -l name:prefix=acme/ -L env\n" +
		"  daybook journals list -l 'env in (prod, qa), !deprecated' -o yaml"
}

func (c *journalsListCmd) Run(e *env) (err error) {
	selector, err := parseSelector(c.Selector)
	if err != nil {
		return err
	}
	jc, closeClient, err := c.open(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeClient()) }()
	// What cannot be listed at all cannot be watched.
	list, err := listJournals(e.ctx, jc, selector)
	if err != nil {
		return err
	}
	if c.Watch {
		return c.watch(e, jc, selector)
	}
	return c.print(e, list)
}

func (c *journalsListCmd) watch(e *env, jc protocol.JournalClient, selector *protocol.LabelSelector) error {
	ctx, cancel := context.WithCancel(e.ctx)
	list := client.NewWatchedList(ctx, jc, &protocol.ListRequest{Selector: selector}, nil)
	defer func() {
		cancel()
		<-list.Done()
	}()
	for {
		select {
		case <-e.ctx.Done():
			return nil
		case err := <-list.UpdateCh():
			if isRefusal(err) {
				return fmt.Errorf("watch journals: %w", err)
			}
			if err != nil {
				e.log.Warn("watch journals, trying again", "error", err)
				continue
			}
			if err := c.print(e, list.List()); err != nil {
				return err
			}
		}
	}
}

func (c *journalsListCmd) print(e *env, list *protocol.ListResponse) error {
	var text []byte
	var err error
	switch c.Format {
	case "yaml":
		text, err = spectree.FromListing(list.GetJournals()).Marshal()
	case "json":
		text, err = listingJSON(list)
	default:
		return c.table(e, list.GetJournals())
	}
	if err != nil {
		return err
	}
	_, err = e.stdout.Write(text)
	return err
}

// listingJSON returns the same text for the same listing; protojson alone varies the white space.
func listingJSON(list *protocol.ListResponse) ([]byte, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(list)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Compact(&out, text)
	out.WriteByte('\n')
	return out.Bytes(), err
}

func (c *journalsListCmd) table(e *env, journals []*protocol.ListResponse_Journal) error {
	out := bufio.NewWriter(e.stdout)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	columns := []string{"NAME"}
	for _, k := range []struct {
		show bool
		name string
	}{{c.RF, "RF"}, {c.Primary, "PRIMARY"}, {c.Replicas, "REPLICAS"}, {c.Stores, "STORE"}} {
		if k.show {
			columns = append(columns, k.name)
		}
	}
	fmt.Fprintln(w, strings.Join(append(columns, c.Label...), "\t"))
	for _, j := range journals {
		fmt.Fprintln(w, strings.Join(c.row(j), "\t"))
	}
	return errors.Join(w.Flush(), out.Flush())
}

func (c *journalsListCmd) row(j *protocol.ListResponse_Journal) []string {
	const none = "<none>"
	row := []string{j.GetSpec().GetName()}
	if c.RF {
		row = append(row, fmt.Sprint(j.GetSpec().GetReplication()))
	}
	var replicas []string
	primary := none
	for i, m := range j.GetRoute().GetMembers() {
		replicas = append(replicas, m.GetSuffix())
		if i == int(j.GetRoute().GetPrimary()) {
			primary = m.GetSuffix()
		}
	}
	if j.GetSpec().GetSuspend().GetLevel() != protocol.JournalSpec_Suspend_NONE {
		primary += " <S>"
	}
	orNone := func(values []string) string {
		if len(values) == 0 {
			return none
		}
		return strings.Join(values, ",")
	}
	if c.Primary {
		row = append(row, primary)
	}
	if c.Replicas {
		row = append(row, orNone(replicas))
	}
	if c.Stores {
		stores := j.GetSpec().GetFragment().GetStores()
		row = append(row, orNone(stores[:min(1, len(stores))]))
	}
	for _, l := range c.Label {
		row = append(row, orNone(j.GetSpec().GetLabels().ValuesOf(l)))
	}
	return row
}
