// Package redact replaces secrets in streams, before anybody else sees them.
//
// A [Set] knows values (the content of environment variables, what programs add at run time) and patterns (regular
// expressions). Each stream is read through a [Reader] of the set, which replaces every occurrence by a mask, wherever reads,
// chunks and lines cut it:
//
//	set := redact.New(patterns...)
//	err := set.Add(password)
//	r := set.Reader(stdout, redact.Shorten)
//	n, err := r.Read(p) // never gives anything that is, or may yet become, a secret
//
// What a Reader holds back is no more than the bytes from which on a value or a pattern may yet match. With a set that is empty
// it is not more than a check for each read. What is masked does not depend on how the stream was cut, except that a match of a
// pattern is found only up to a length of MaxMatch.
//
// A Set may be used concurrently. A Reader belongs to whoever reads.
package redact

import (
	"fmt"
	"io"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	// MinValue is the length of the shortest value in bytes. Shorter ones occur everywhere by chance.
	MinValue = 4
	// MaxValue is the length of the longest.
	MaxValue = 64 << 10
	// MaxValues is how many values a set takes.
	MaxValues = 1000
	// MaxMatch is the longest match of a pattern, in bytes.
	MaxMatch = 64 << 10
	// minLine is the least length of a line of a value that counts as a value of its own.
	minLine = 8
)

// Mask is what stands for a secret.
const Mask = "***"

// Set is what has to be redacted. The zero value is empty and ready to use.
type Set struct {
	mu       sync.Mutex
	patterns []*pattern
	words    []string
	known    map[string]struct{}
	matcher  atomic.Pointer[matcher]
}

// matcher is an immutable state of a set.
type matcher struct {
	words    *words
	patterns []*pattern
}

// AddPattern adds a regular expression in the syntax of package regexp. Readers that exist do not learn of it.
func (s *Set) AddPattern(expr string) error {
	p, err := newPattern(expr)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patterns = append(s.patterns, p)
	s.publish()
	return nil
}

// Add adds a value of MinValue to MaxValue bytes. A value of several lines is found with either line end, without its last line
// end, and each of its longer lines alone. Bytes that a Reader has given away are not taken back. Errors are of the kind fault.Invalid, or
// fault.Exhausted when there are too many values.
func (s *Set) Add(value string) error {
	value = strings.Trim(value, "\r\n")
	if n := len(value); n < MinValue || n > MaxValue {
		return fault.New(fault.Invalid, "a value to redact has %d bytes; between %d and %d are allowed", n, MinValue, MaxValue)
	}
	lines := strings.Split(strings.ReplaceAll(value, "\r\n", "\n"), "\n")
	forms := []string{value, strings.Join(lines, "\n"), strings.Join(lines, "\r\n")}
	if len(lines) > 1 {
		for _, line := range lines {
			// The frame of a PEM block is no secret.
			if line = strings.TrimSpace(line); len(line) >= minLine && !strings.HasPrefix(line, "-----") {
				forms = append(forms, line)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = make(map[string]struct{})
	}
	words := slices.Clip(s.words)
	for _, form := range forms {
		if len(form) > 2*MaxValue || slices.Contains(words[len(s.words):], form) {
			continue
		}
		if _, ok := s.known[form]; !ok {
			words = append(words, form)
		}
	}
	if len(words) > MaxValues {
		return fault.New(fault.Exhausted, "more than %d values to redact", MaxValues)
	}
	if len(words) == len(s.words) {
		return nil
	}
	for _, w := range words[len(s.words):] {
		s.known[w] = struct{}{}
	}
	s.words = words
	s.publish()
	return nil
}

// publish makes a change known to readers. s.mu is held.
func (s *Set) publish() {
	s.matcher.Store(&matcher{words: newWords(s.words), patterns: slices.Clone(s.patterns)})
}

// String returns text with everything redacted.
func (s *Set) String(text string) string {
	if s == nil || s.matcher.Load() == nil {
		return text
	}
	b, _ := io.ReadAll(s.Reader(strings.NewReader(text), Shorten)) // a string's reader does not fail
	return string(b)
}

// newPattern compiles an expression.
func newPattern(expr string) (*pattern, error) {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("pattern to redact: %w", err)
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, fmt.Errorf("pattern to redact %q: %w", expr, err)
	}
	return compile(prog), nil
}
