package redact

import (
	"slices"
	"strings"
)

// words finds many strings at once, by the method of Wu and Manber: two bytes tell how far the window may move, so that most
// of the text is never looked at.
type words struct {
	// least is the length of the shortest word, and of the window.
	least int
	// shift says for the last two bytes of a window how far it may move on.
	shift []uint8
	// ending are the words by the last two bytes of their first least bytes.
	ending map[uint16][]string
	// starting are the words by their first byte, for the end of the text.
	starting [256][]string
}

// newWords returns nil for no words. None is shorter than two bytes.
func newWords(list []string) *words {
	if len(list) == 0 {
		return nil
	}
	w := &words{least: len(list[0]), ending: make(map[uint16][]string)}
	for _, word := range list {
		w.least = min(w.least, len(word))
	}
	w.least = min(w.least, 128)
	w.shift = make([]uint8, 1<<16)
	for i := range w.shift {
		w.shift[i] = uint8(w.least - 1)
	}
	for _, word := range list {
		for i := range w.least - 1 {
			at := pair(word[i], word[i+1])
			w.shift[at] = min(w.shift[at], uint8(w.least-2-i))
		}
		at := pair(word[w.least-2], word[w.least-1])
		w.ending[at] = append(w.ending[at], word)
		w.starting[word[0]] = append(w.starting[word[0]], word)
	}
	return w
}

func pair(a, b byte) uint16 { return uint16(a) | uint16(b)<<8 }

// find appends the spans of all words in the text. From hold on, which is the end of the text if there is none, a word may have
// begun that the text cuts off.
func (w *words) find(text []byte, spans []span) (_ []span, hold int) {
	hold = len(text)
	i := w.least - 1
	for i < len(text) {
		move := w.shift[pair(text[i-1], text[i])]
		if move > 0 {
			i += int(move)
			continue
		}
		begin := i - w.least + 1
		for _, word := range w.ending[pair(text[i-1], text[i])] {
			rest := text[begin:]
			switch {
			case len(rest) >= len(word):
				if string(rest[:len(word)]) == word {
					spans = append(spans, span{begin, begin + len(word)})
				}
			case word[:len(rest)] == string(rest):
				hold = min(hold, begin)
			}
		}
		i++
	}
	for begin := max(0, len(text)-w.least+1); begin < hold; begin++ {
		rest := text[begin:]
		if slices.ContainsFunc(w.starting[text[begin]], func(word string) bool { return strings.HasPrefix(word, string(rest)) }) {
			hold = begin
		}
	}
	return spans, hold
}

// span is a part of a text, or of a stream, that is to be masked.
type span struct{ begin, end int }

// merge sorts spans and joins those that overlap.
func merge(spans []span) []span {
	if len(spans) < 2 {
		return spans
	}
	slices.SortFunc(spans, func(a, b span) int {
		if a.begin != b.begin {
			return a.begin - b.begin
		}
		return b.end - a.end
	})
	out := spans[:1]
	for _, s := range spans[1:] {
		if last := &out[len(out)-1]; s.begin < last.end {
			last.end = max(last.end, s.end)
		} else {
			out = append(out, s)
		}
	}
	return out
}
