package protocol

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"text/template"
	"text/template/parse"
	"time"
)

// PathPostfixData is what a path postfix template sees.
type PathPostfixData struct {
	Spool SpoolData
	*JournalSpec
}

// SpoolData describes the fragment whose path is made.
type SpoolData struct {
	*Fragment
	// FirstAppendTime is when the first append into this fragment was committed, in UTC.
	FirstAppendTime time.Time
	Registers       *LabelSet
}

const maxPathPostfix = 512

// EvaluatePathPostfix returns the path postfix that the spec's template makes of the data. It is validated: a fragment below
// a path that no listing accepts would be lost.
func EvaluatePathPostfix(spec *JournalSpec, spool SpoolData) (string, error) {
	text := spec.GetFragment().GetPathPostfixTemplate()
	if text == "" {
		return "", nil
	}
	tpl, err := parsePathPostfix(text)
	if err != nil {
		return "", err
	}
	var out shortText
	if err := tpl.Execute(&out, PathPostfixData{Spool: spool, JournalSpec: spec}); err != nil {
		return "", violation(BadTemplate, "path postfix template: %v", err)
	}
	if err := validatePath(out.String(), 0, maxPathPostfix); err != nil {
		return "", err
	}
	return out.String(), nil
}

// tryPathPostfix executes a template with everything zero. What it makes of that need not be a valid path.
func tryPathPostfix(text string) error {
	if text == "" {
		return nil
	}
	tpl, err := parsePathPostfix(text)
	if err != nil {
		return err
	}
	zero := PathPostfixData{
		Spool:       SpoolData{Fragment: &Fragment{Sum: &SHA1Sum{}}, Registers: &LabelSet{}},
		JournalSpec: &JournalSpec{Labels: &LabelSet{}, Fragment: &JournalSpec_Fragment{}, Suspend: &JournalSpec_Suspend{}},
	}
	if err := tpl.Execute(new(shortText), zero); err != nil {
		return violation(BadTemplate, "path postfix template: %v", err)
	}
	return nil
}

// maxTemplateText is the longest text that a template may make, also of one that it only works with.
const maxTemplateText = 16 << 10

var errTemplateText = errors.New("the text that it makes is too long")

// shortText is the output of a template.
type shortText struct{ strings.Builder }

func (s *shortText) Write(p []byte) (int, error) {
	if s.Len()+len(p) > maxTemplateText {
		return 0, errTemplateText
	}
	return s.Builder.Write(p)
}

// shortFuncs are those functions of templates whose text may be longer than what they are given. A few bytes of a template could
// double a text again and again.
var shortFuncs = template.FuncMap{
	"html": short(template.HTMLEscaper), "js": short(template.JSEscaper), "urlquery": short(template.URLQueryEscaper),
	"print": short(fmt.Sprint), "println": short(fmt.Sprintln),
	"printf": func(format string, args ...any) (string, error) {
		if wide.MatchString(format) {
			return "", errTemplateText
		}
		return short(func(args ...any) string { return fmt.Sprintf(format, args...) })(args...)
	},
}

// wide finds widths and precisions that are not those of dates and offsets.
var wide = regexp.MustCompile(`%[^a-zA-Z%]*(\*|[0-9]{3})`)

func short(f func(args ...any) string) func(args ...any) (string, error) {
	return func(args ...any) (string, error) {
		text := f(args...)
		if len(text) > maxTemplateText {
			return "", errTemplateText
		}
		return text, nil
	}
}

// parsePathPostfix parses the template and refuses those that loop: a spec comes from a stranger, and executing its
// template must take time and memory in proportion to its length.
func parsePathPostfix(text string) (*template.Template, error) {
	const most = 4096
	if len(text) > most {
		return nil, violation(BadTemplate, "path postfix template has %d bytes; at most %d are allowed", len(text), most)
	}
	tpl, err := template.New("path postfix").Funcs(shortFuncs).Parse(text)
	if err != nil {
		return nil, violation(BadTemplate, "path postfix template: %v", err)
	}
	if tpl.Tree != nil && loops(tpl.Root) {
		return nil, violation(BadTemplate, "path postfix template must not use range or template")
	}
	return tpl, nil
}

func loops(n parse.Node) bool {
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil {
			return false
		}
		for _, c := range n.Nodes {
			if loops(c) {
				return true
			}
		}
	case *parse.IfNode:
		return loops(n.List) || loops(n.ElseList)
	case *parse.WithNode:
		return loops(n.List) || loops(n.ElseList)
	case *parse.RangeNode, *parse.TemplateNode:
		return true
	}
	return false
}
