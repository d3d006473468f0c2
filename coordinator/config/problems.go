package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxProblems is how many problems of a file are told. More do not help whoever repairs it.
const maxProblems = 100

// Problem is something wrong in a file. Lines and columns begin at one.
type Problem struct {
	Line, Column int
	Text         string
}

// Problems is everything that is wrong in a file, in the order of the lines.
type Problems struct {
	// File is the name that the file was given.
	File  string
	Found []Problem
	// More is how many problems were left out.
	More int
}

// Error returns a line for each problem, as "file:line:column: text".
func (p *Problems) Error() string {
	lines := make([]string, 0, len(p.Found)+1)
	for _, f := range p.Found {
		lines = append(lines, fmt.Sprintf("%s:%d:%d: %s", p.File, f.Line, f.Column, f.Text))
	}
	if p.More > 0 {
		lines = append(lines, fmt.Sprintf("%s: and %d more", p.File, p.More))
	}
	return strings.Join(lines, "\n")
}

func (p *Problems) add(line, column int, format string, args ...any) {
	if len(p.Found) >= maxProblems {
		p.More++
		return
	}
	p.Found = append(p.Found, Problem{Line: max(line, 1), Column: max(column, 1), Text: fmt.Sprintf(format, args...)})
}

// err returns the problems in order, or nil if there are none.
func (p *Problems) err() error {
	if len(p.Found) == 0 {
		return nil
	}
	slices.SortStableFunc(p.Found, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return p
}
