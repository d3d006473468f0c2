package protocol

import (
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
	var out strings.Builder
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
	if err := tpl.Execute(new(strings.Builder), zero); err != nil {
		return violation(BadTemplate, "path postfix template: %v", err)
	}
	return nil
}

// parsePathPostfix parses the template and refuses those that loop: a spec comes from a stranger, and executing its
// template must take time and memory in proportion to its length.
func parsePathPostfix(text string) (*template.Template, error) {
	const most = 4096
	if len(text) > most {
		return nil, violation(BadTemplate, "path postfix template has %d bytes; at most %d are allowed", len(text), most)
	}
	tpl, err := template.New("path postfix").Parse(text)
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
