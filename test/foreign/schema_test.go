//go:build unix

// Package foreign holds the tests by clients that are not ours: they know a protocol by the numbers of its
// fields and the names of its methods alone, build their messages from these, and demand of every response what the clients
// of others demand. Nothing of our own generated code takes part on their side.
//
// There is a client of journals, and there are a writer and a reader of logs that do what logdog_butler and logdog do.
//
// The server is the real one: `daybook serve` as a process, with everything on its one port. What a process cannot be asked
// for, such as keys, is served in ours.
package foreign

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// schema has a line for each message: its fields with their numbers. A star is for fields that repeat.
const schema = `
Label              1 name string, 2 value string, 3 prefix bool
LabelSet           1 labels *Label
LabelSelector      1 include LabelSet, 2 exclude LabelSet
Duration           1 seconds int, 2 nanos int
JournalSpec        1 name string, 2 replication int, 3 labels LabelSet, 4 fragment SpecFragment, 6 flags int, 7 max_append_rate int, 8 suspend Suspend
SpecFragment       1 length int, 2 compression_codec int, 3 stores *string, 4 refresh_interval Duration, 5 retention Duration, 6 flush_interval Duration, 7 path_postfix_template string
Suspend            1 level int, 2 offset int
ID                 1 zone string, 2 suffix string
Fragment           1 journal string, 2 begin int, 3 end int, 4 sum SHA1Sum, 5 compression_codec int, 6 backing_store string, 7 mod_time int, 8 path_postfix string
SHA1Sum            1 part1 fixed64, 2 part2 fixed64, 3 part3 fixed32
Route              1 members *ID, 2 primary int, 3 endpoints *string
Header             1 process_id ID, 2 route Route, 3 etcd Etcd
Etcd               1 cluster_id int, 2 member_id int, 3 revision int, 4 raft_term int
ReadRequest        1 header Header, 2 journal string, 3 offset int, 4 block bool, 5 do_not_proxy bool, 6 metadata_only bool, 7 end_offset int, 8 begin_mod_time int, 9 min_etcd_revision int
ReadResponse       1 status int, 2 header Header, 3 offset int, 4 write_head int, 5 fragment Fragment, 6 fragment_url string, 7 content bytes
AppendRequest      1 header Header, 2 journal string, 3 do_not_proxy bool, 4 content bytes, 5 offset int, 6 check_registers LabelSelector, 7 union_registers LabelSet, 8 subtract_registers LabelSet, 9 suspend int, 10 min_etcd_revision int
AppendResponse     1 status int, 2 header Header, 3 commit Fragment, 4 registers LabelSet, 5 total_chunks int, 6 delayed_chunks int, 7 store_health_error string
ReplicateRequest   1 header Header, 2 deprecated_journal string, 3 proposal Fragment, 4 content bytes, 5 content_delta int, 6 acknowledge bool, 7 registers LabelSet
ReplicateResponse  1 status int, 2 header Header, 3 fragment Fragment, 4 registers LabelSet
ListRequest        1 selector LabelSelector, 4 watch bool, 5 watch_resume Header
ListResponse       1 status int, 2 header Header, 3 journals *ListedJournal
ListedJournal      1 spec JournalSpec, 2 mod_revision int, 3 route Route, 4 create_revision int
ApplyRequest       1 changes *Change
Change             1 expect_mod_revision int, 2 upsert JournalSpec, 3 delete string
ApplyResponse      1 status int, 2 header Header
FragmentsRequest   1 header Header, 2 journal string, 3 begin_mod_time int, 4 end_mod_time int, 5 next_page_token int, 6 page_limit int, 7 signatureTTL Duration, 8 do_not_proxy bool
FragmentsResponse  1 status int, 2 header Header, 3 fragments *ListedFragment, 4 next_page_token int
ListedFragment     1 spec Fragment, 2 signed_url string
FragmentStoreHealthRequest   1 fragment_store string, 2 check_delete bool, 3 check_delete_prefix string
FragmentStoreHealthResponse  1 status int, 2 header Header, 3 store_health_error string
`

// field is one of a message.
type field struct {
	name     string
	number   protowire.Number
	kind     string // string, bytes, int, bool, fixed64, fixed32, or the name of a message
	repeated bool
}

var messages = parseSchema(strings.TrimSpace(schema) + logSchema)

func parseSchema(schema string) map[string][]field {
	out := make(map[string][]field)
	for line := range strings.Lines(strings.TrimSpace(schema)) {
		message, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		for text := range strings.SplitSeq(rest, ",") {
			words := strings.Fields(text)
			number, err := strconv.Atoi(words[0])
			if err != nil || len(words) != 3 {
				panic(text)
			}
			kind, repeated := strings.CutPrefix(words[2], "*")
			out[message] = append(out[message], field{words[1], protowire.Number(number), kind, repeated})
		}
	}
	return out
}

// object is a message. Its values are strings, byte slices, ints, bools, objects, and slices of strings or objects. A field
// is there if it was on the wire.
type object map[string]any

// encode returns the wire form of an object.
func encode(message string, o object) []byte {
	var out []byte
	for _, f := range messages[message] {
		v, ok := o[f.name]
		if !ok {
			continue
		}
		switch v := v.(type) {
		case []object:
			for _, item := range v {
				out = appendField(out, f, item)
			}
		case []string:
			for _, item := range v {
				out = appendField(out, f, item)
			}
		default:
			out = appendField(out, f, v)
		}
	}
	for name := range o {
		if !slices.ContainsFunc(messages[message], func(f field) bool { return f.name == name }) {
			panic(message + " has no field " + name)
		}
	}
	return out
}

func appendField(out []byte, f field, v any) []byte {
	switch v := v.(type) {
	case string:
		return protowire.AppendString(protowire.AppendTag(out, f.number, protowire.BytesType), v)
	case []byte:
		return protowire.AppendBytes(protowire.AppendTag(out, f.number, protowire.BytesType), v)
	case object:
		return protowire.AppendBytes(protowire.AppendTag(out, f.number, protowire.BytesType), encode(f.kind, v))
	case bool:
		return protowire.AppendVarint(protowire.AppendTag(out, f.number, protowire.VarintType), protowire.EncodeBool(v))
	case int:
		switch f.kind {
		case "fixed64":
			return protowire.AppendFixed64(protowire.AppendTag(out, f.number, protowire.Fixed64Type), uint64(v))
		case "fixed32":
			return protowire.AppendFixed32(protowire.AppendTag(out, f.number, protowire.Fixed32Type), uint32(v))
		}
		return protowire.AppendVarint(protowire.AppendTag(out, f.number, protowire.VarintType), uint64(v))
	}
	panic(fmt.Sprintf("field %s cannot be %T", f.name, v))
}

// extensions is where the numbers of fields begin that clients of others have never heard of, and skip.
const extensions = 1000

// decode returns the object of a wire form. A field that the schema does not have, or of another type, is an error: no client
// would ever see it.
func decode(message string, b []byte) (object, error) {
	o := object{}
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		i := slices.IndexFunc(messages[message], func(f field) bool { return f.number == number })
		if i < 0 && number >= extensions {
			n := protowire.ConsumeFieldValue(number, typ, b)
			if n < 0 {
				return nil, protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		if i < 0 {
			return nil, fmt.Errorf("%s has no field %d", message, number)
		}
		f := messages[message][i]
		v, n, err := consume(f, typ, b)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", message, f.name, err)
		}
		b = b[n:]
		switch v := v.(type) {
		case string:
			if f.repeated {
				o[f.name] = append(o.texts(f.name), v)
				continue
			}
		case object:
			if f.repeated {
				o[f.name] = append(o.list(f.name), v)
				continue
			}
		}
		if _, twice := o[f.name]; twice {
			return nil, fmt.Errorf("%s.%s is there twice", message, f.name)
		}
		o[f.name] = v
	}
	return o, nil
}

func consume(f field, typ protowire.Type, b []byte) (any, int, error) {
	want := protowire.BytesType
	switch f.kind {
	case "int", "bool":
		want = protowire.VarintType
	case "fixed64":
		want = protowire.Fixed64Type
	case "fixed32":
		want = protowire.Fixed32Type
	}
	if typ != want {
		return nil, 0, fmt.Errorf("wire type %d, want %d", typ, want)
	}
	switch want {
	case protowire.VarintType:
		v, n := protowire.ConsumeVarint(b)
		if f.kind == "bool" {
			return protowire.DecodeBool(v), n, protowire.ParseError(min(n, 0))
		}
		return int(v), n, protowire.ParseError(min(n, 0))
	case protowire.Fixed64Type:
		v, n := protowire.ConsumeFixed64(b)
		return int(v), n, protowire.ParseError(min(n, 0))
	case protowire.Fixed32Type:
		v, n := protowire.ConsumeFixed32(b)
		return int(v), n, protowire.ParseError(min(n, 0))
	}
	v, n := protowire.ConsumeBytes(b)
	if n < 0 {
		return nil, n, protowire.ParseError(n)
	}
	switch f.kind {
	case "string":
		return string(v), n, nil
	case "bytes":
		return bytes.Clone(v), n, nil
	}
	sub, err := decode(f.kind, v)
	return sub, n, err
}

// The getters return zero for what is not there.

func (o object) num(name string) int        { v, _ := o[name].(int); return v }
func (o object) text(name string) string    { v, _ := o[name].(string); return v }
func (o object) sub(name string) object     { v, _ := o[name].(object); return v }
func (o object) list(name string) []object  { v, _ := o[name].([]object); return v }
func (o object) texts(name string) []string { v, _ := o[name].([]string); return v }
func (o object) has(name string) bool       { _, ok := o[name]; return ok }

// The numbers of statuses.
const (
	ok                     = 0
	journalNotFound        = 1
	notJournalPrimary      = 3
	offsetNotYetAvailable  = 6
	etcdTransactionFailed  = 9
	notAllowed             = 10
	wrongAppendOffset      = 11
	registerMismatch       = 13
	suspended              = 14
	fragmentStoreUnhealthy = 15
	lastStatus             = 15
)

const maxOffset = math.MaxInt64
