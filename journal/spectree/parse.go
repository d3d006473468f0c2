package spectree

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/daybook-dev/daybook/internal/fault"
)

// MaxText is the longest text that is parsed, in bytes.
const MaxText = 64 << 20

// Parse returns the valid tree of a text in YAML. Keys that are not known are errors, as is all else that would otherwise be
// lost. Errors say on which lines they are.
func Parse(text []byte) (*Node, error) {
	if len(text) > MaxText {
		return nil, fault.New(fault.Invalid, "specs of %d bytes are too long; at most %d are read at once", len(text), MaxText)
	}
	n := new(Node)
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	switch err := d.Decode(n); {
	case errors.Is(err, io.EOF):
		return nil, errNoSpecs
	case err != nil:
		return nil, decodeError(err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, "there is a second YAML document behind the specs; put all into one tree")
	}
	// A decoder does not tell lines to structures, so they are looked up in a second pass.
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, decodeError(err)
	}
	if len(doc.Content) != 0 {
		n.locate(doc.Content[0])
	}
	if n.Name == "" && len(n.Children) == 0 {
		return nil, errNoSpecs
	}
	if err := n.Validate(); err != nil {
		return nil, err
	}
	return n, nil
}

var errNoSpecs = fault.New(fault.Invalid, "there are no specs; give at least the name of a journal, or directories with children")

// locate sets the lines of a tree that was decoded from a node.
func (n *Node) locate(from *yaml.Node) {
	if from.Kind == yaml.AliasNode {
		from = from.Alias
	}
	n.line = from.Line
	for i := 0; i+1 < len(from.Content); i += 2 {
		children := from.Content[i+1]
		if from.Content[i].Value != "children" {
			continue
		}
		if children.Kind == yaml.AliasNode {
			children = children.Alias
		}
		for j, c := range children.Content {
			if j < len(n.Children) && n.Children[j] != nil {
				n.Children[j].locate(c)
			}
		}
	}
}

// The words of the YAML library that speak of Go rather than of the text.
var (
	unknownKey = regexp.MustCompile(`field (\S+) not found in type \S+`)
	wrongType  = regexp.MustCompile("cannot unmarshal !!(\\S+) (?:`([^`]*)` )?into (\\S+)")
)

// decodeError puts an error of the YAML library into words for those who wrote the text.
func decodeError(err error) error {
	problems := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	if e, ok := errors.AsType[*yaml.TypeError](err); ok {
		problems = e.Errors
	}
	for i, p := range problems {
		p = unknownKey.ReplaceAllString(p, `there is no key "$1"`)
		problems[i] = wrongType.ReplaceAllStringFunc(p, func(s string) string {
			m := wrongType.FindStringSubmatch(s)
			found := strings.NewReplacer("seq", "a list", "map", "keys and values").Replace(m[1])
			if m[2] != "" {
				found = `"` + m[2] + `"`
			}
			return found + " is not " + kindOf(m[3])
		})
	}
	return fault.New(fault.Invalid, "%s", strings.Join(problems, "; "))
}

// kindOf names what a value of a Go type is in the text.
func kindOf(goType string) string {
	switch {
	case strings.HasPrefix(goType, "int"):
		return "a number"
	case goType == "bool":
		return "true or false"
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case goType == "string", strings.HasSuffix(goType, "Journal"), strings.HasSuffix(goType, "FragmentStore"):
		return "a text"
	}
	return "keys and values"
}

// Marshal returns the text of a tree.
func (n *Node) Marshal() ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	e.CompactSeqIndent()
	if err := e.Encode(n); err != nil {
		return nil, fault.New(fault.Internal, "write specs: %w", err)
	}
	if err := e.Close(); err != nil {
		return nil, fault.New(fault.Internal, "write specs: %w", err)
	}
	return b.Bytes(), nil
}
