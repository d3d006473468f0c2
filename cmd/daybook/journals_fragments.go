package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

type journalsFragmentsCmd struct {
	journalsFlags
	selectFlags
	Format string        `help:"table, or json: one object a line." short:"o" enum:"table,json" default:"table"`
	From   string        `help:"Leave out fragments stored before this time." placeholder:"TIME"`
	To     string        `help:"Leave out fragments stored after this time, and those not stored yet." placeholder:"TIME"`
	URLTTL time.Duration `help:"Show URLs from which the fragments can be fetched for so long." name:"url-ttl" placeholder:"DURATION"`
}

func (c *journalsFragmentsCmd) Help() string {
	return "A fragment that is not stored yet is on the broker's disk alone. TIME is 2006-01-02T15:04:05Z, Unix seconds, or a duration ago such as 90m.\n\n" +
		"  daybook journals fragments -l name=acme/orders\n" +
		"  daybook journals fragments -l name=acme/orders --from 24h --url-ttl 10m -o json"
}

func (c *journalsFragmentsCmd) Run(e *env) (err error) {
	if c.URLTTL < 0 {
		return fault.New(fault.Invalid, "--url-ttl %v is negative", c.URLTTL)
	}
	req := new(protocol.FragmentsRequest)
	if req.BeginModTime, err = parseSince(c.From, time.Now()); err != nil {
		return err
	}
	if req.EndModTime, err = parseSince(c.To, time.Now()); err != nil {
		return err
	}
	if c.URLTTL > 0 {
		req.SignatureTTL = durationpb.New(c.URLTTL)
	}
	jc, closeClient, err := c.open(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeClient()) }()
	journals, err := c.selected(e.ctx, jc)
	if err != nil {
		return err
	}
	pages := make([]*protocol.FragmentsResponse, len(journals))
	err = eachActive(journals, func(i int, s *protocol.JournalSpec) (err error) {
		req := &protocol.FragmentsRequest{
			Journal: s.GetName(), BeginModTime: req.BeginModTime, EndModTime: req.EndModTime, SignatureTTL: req.SignatureTTL,
		}
		pages[i], err = client.ListAllFragments(e.ctx, jc, req)
		return err
	})
	if err != nil {
		return err
	}
	out := bufio.NewWriter(e.stdout)
	if c.Format == "json" {
		return errors.Join(printFragmentsJSON(out, pages), out.Flush())
	}
	return errors.Join(c.table(out, pages), out.Flush())
}

func (c *journalsFragmentsCmd) table(out *bufio.Writer, pages []*protocol.FragmentsResponse) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	columns := "JOURNAL\tOFFSET\tLENGTH\tSTORED\tSHA1\tCODEC"
	if c.URLTTL > 0 {
		columns += "\tURL"
	}
	fmt.Fprintln(w, columns)
	for _, page := range pages {
		for _, x := range page.GetFragments() {
			f := x.GetSpec()
			stored := ""
			if f.GetModTime() != 0 {
				stored = age(time.Since(time.Unix(f.GetModTime(), 0)))
			}
			digest := f.GetSum().ToDigest()
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%x...\t%s", f.GetJournal(), f.GetBegin(), bytesText(f.ContentLength()), stored, digest[:6],
				strings.ToLower(f.GetCompressionCodec().String()))
			if c.URLTTL > 0 {
				fmt.Fprintf(w, "\t%s", x.GetSignedUrl())
			}
			fmt.Fprintln(w)
		}
	}
	return w.Flush()
}

// jsonFragment is a fragment as the JSON of other tools for journals has it: with numbers as numbers, the codec's too.
type jsonFragment struct {
	Spec struct {
		Journal          string  `json:"journal,omitempty"`
		Begin            int64   `json:"begin"`
		End              int64   `json:"end"`
		Sum              jsonSum `json:"sum"`
		CompressionCodec int32   `json:"compression_codec,omitempty"`
		BackingStore     string  `json:"backing_store,omitempty"`
		ModTime          int64   `json:"mod_time,omitempty"`
		PathPostfix      string  `json:"path_postfix,omitempty"`
	} `json:"spec"`
	SignedURL string `json:"signed_url,omitempty"`
}

type jsonSum struct {
	Part1 uint64 `json:"part1,omitempty"`
	Part2 uint64 `json:"part2,omitempty"`
	Part3 uint32 `json:"part3,omitempty"`
}

func printFragmentsJSON(out *bufio.Writer, pages []*protocol.FragmentsResponse) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for _, page := range pages {
		for _, x := range page.GetFragments() {
			var j jsonFragment
			f := x.GetSpec()
			j.Spec.Journal, j.Spec.Begin, j.Spec.End = f.GetJournal(), f.GetBegin(), f.GetEnd()
			j.Spec.Sum = jsonSum{f.GetSum().GetPart1(), f.GetSum().GetPart2(), f.GetSum().GetPart3()}
			j.Spec.CompressionCodec, j.Spec.BackingStore = int32(f.GetCompressionCodec()), f.GetBackingStore()
			j.Spec.ModTime, j.Spec.PathPostfix, j.SignedURL = f.GetModTime(), f.GetPathPostfix(), x.GetSignedUrl()
			if err := enc.Encode(j); err != nil {
				return err
			}
		}
	}
	return nil
}
