package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/daybook-dev/daybook/internal/fault"
)

// MaxFile is the largest file that is read, in bytes.
const MaxFile = 1 << 20

// Parse returns the configuration in a text, which problems call file. Its error is of kind Invalid and wraps Problems.
func Parse(file string, text []byte) (*Config, error) {
	problems := &Problems{File: file}
	c := parse(text, problems)
	if err := problems.err(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	sum := sha256.Sum256(text)
	c.Version = hex.EncodeToString(sum[:6])
	return c, nil
}

func parse(text []byte, problems *Problems) *Config {
	if len(text) > MaxFile {
		problems.add(1, 1, "the file has more than %d bytes", MaxFile)
		return nil
	}
	var doc yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		problems.add(1, 1, "the file is empty; it needs projects")
		return nil
	case err != nil:
		problems.syntax(text, err)
		return nil
	}
	var second yaml.Node
	switch err := d.Decode(&second); {
	case err == nil:
		problems.add(second.Line, second.Column, "a second document begins here; put all into one")
	case !errors.Is(err, io.EOF):
		problems.syntax(text, err)
	}
	r := reader{problems}
	return r.config(doc.Content[0])
}

var syntaxLine = regexp.MustCompile(`^(?:line (\d+): )?`)

// syntax adds an error of the YAML library, which stops at the first and tells no column: the line's beginning is shown.
func (p *Problems) syntax(text []byte, err error) {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	found := syntaxLine.FindStringSubmatch(message)
	message = strings.TrimPrefix(message, found[0])
	line, _ := strconv.Atoi(found[1])
	line = max(line, 1)
	column := 1
	if lines := bytes.SplitN(text, []byte("\n"), line+1); len(lines) >= line {
		column += len(lines[line-1]) - len(bytes.TrimLeft(lines[line-1], " "))
	}
	p.add(line, column, "no YAML: %s", message)
}

// reader reads nodes and notes what is wrong with them.
type reader struct{ *Problems }

func (r reader) wrong(n *yaml.Node, format string, args ...any) {
	r.add(n.Line, n.Column, format, args...)
}

// field is a field that a mapping may have.
type field struct {
	name string
	read func(name string, value *yaml.Node)
}

// fields reads a mapping of known fields.
func (r reader) fields(what string, n *yaml.Node, known ...field) {
	r.pairs(what, n, func(key, value *yaml.Node) {
		names := make([]string, len(known))
		for i, f := range known {
			if f.name == key.Value {
				f.read(f.name, value)
				return
			}
			names[i] = f.name
		}
		r.wrong(key, "%s has no field %q; it has %s", what, key.Value, strings.Join(names, ", "))
	})
}

// pairs reads a mapping. A value that is left out is an empty one.
func (r reader) pairs(what string, n *yaml.Node, read func(key, value *yaml.Node)) {
	if isNull(n) {
		return
	}
	if !r.is(what, n, yaml.MappingNode) {
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			r.wrong(key, "a key of %s must be a text", what)
			continue
		}
		if line, ok := seen[key.Value]; ok {
			r.wrong(key, "%q is there a second time; the first is in line %d", key.Value, line)
			continue
		}
		seen[key.Value] = key.Line
		read(key, value)
	}
}

// list reads a sequence.
func (r reader) list(what string, n *yaml.Node, read func(item *yaml.Node)) {
	if isNull(n) {
		return
	}
	if !r.is(what, n, yaml.SequenceNode) {
		return
	}
	for _, item := range n.Content {
		read(item)
	}
}

// texts reads a list of texts, each of which check accepts.
func (r reader) texts(to *[]string, check func(string) error) func(string, *yaml.Node) {
	return func(name string, n *yaml.Node) {
		r.list(name, n, func(item *yaml.Node) {
			if s, ok := r.scalar("an item of "+name, item, "!!str"); ok && r.check(name, item, check(s)) {
				*to = append(*to, s)
			}
		})
	}
}

// text reads a text that check accepts.
func (r reader) text(to *string, check func(string) error) func(string, *yaml.Node) {
	return func(name string, n *yaml.Node) {
		if s, ok := r.scalar(name, n, "!!str"); ok && r.check(name, n, check(s)) {
			*to = s
		}
	}
}

// value reads what has a notation of its own, such as durations.
func value[T any](r reader, to *T, parse func(string) (T, error)) func(string, *yaml.Node) {
	return func(name string, n *yaml.Node) {
		s, ok := r.scalar(name, n, "!!str", "!!int", "!!float")
		if !ok {
			return
		}
		if v, err := parse(s); r.check(name, n, err) {
			*to = v
		}
	}
}

// check notes what is wrong with the value of a node.
func (r reader) check(name string, n *yaml.Node, err error) bool {
	if err != nil {
		r.wrong(n, "%s: %s %v", name, quote(n.Value), err)
	}
	return err == nil
}

// scalar returns the text of a node of one of the tags.
func (r reader) scalar(what string, n *yaml.Node, tags ...string) (string, bool) {
	if !r.is(what, n, yaml.ScalarNode) {
		return "", false
	}
	tag := n.ShortTag()
	for _, t := range tags {
		if t == tag {
			return n.Value, true
		}
	}
	if tag == "!!null" {
		r.wrong(n, "%s has no value", what)
	} else {
		r.wrong(n, "%s must be a text, not %s; put it in quotes", what, quote(n.Value))
	}
	return "", false
}

var kinds = map[yaml.Kind]string{
	yaml.MappingNode:  "fields",
	yaml.SequenceNode: "a list",
	yaml.ScalarNode:   "a single value",
}

// is notes a node that is not of a kind, and those that were given a type of their own.
func (r reader) is(what string, n *yaml.Node, kind yaml.Kind) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		r.wrong(n, "%s: aliases are not followed; write out what *%s stands for", what, n.Value)
	case n.Kind != kind:
		r.wrong(n, "%s must be %s, not %s", what, kinds[kind], kinds[n.Kind])
	case n.Kind != yaml.ScalarNode && n.ShortTag() != "!!map" && n.ShortTag() != "!!seq":
		r.wrong(n, "%s: the tag %s has no meaning here", what, n.Tag)
	default:
		return true
	}
	return false
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// quote shows a value without much of it.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strconv.Quote(s)
}
