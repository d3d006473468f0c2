package spectree

import (
	"strings"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// Text returns the spec of one journal as a leaf of a tree; nil is an empty text.
func Text(s *pb.JournalSpec) (string, error) {
	if s == nil {
		return "", nil
	}
	b, err := ofSpec(s, 0).Marshal()
	return string(b), err
}

// maxCompared bounds the table in which Diff looks for what two texts have in common.
const maxCompared = 1 << 20

// Diff returns the lines of both texts, those that stay after two spaces, those that go after "- ", and those that come after
// "+ ". It is empty if the texts are equal.
func Diff(before, after string) string {
	if before == after {
		return ""
	}
	a, b := lines(before), lines(after)
	head, tail := 0, 0
	for head < min(len(a), len(b)) && a[head] == b[head] {
		head++
	}
	for tail < min(len(a), len(b))-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	var out strings.Builder
	mark(&out, "  ", a[:head])
	changed(&out, a[head:len(a)-tail], b[head:len(b)-tail])
	mark(&out, "  ", a[len(a)-tail:])
	return out.String()
}

func lines(text string) []string {
	all := strings.SplitAfter(text, "\n")
	return all[:len(all)-1]
}

func mark(out *strings.Builder, sign string, lines []string) {
	for _, l := range lines {
		out.WriteString(sign + l)
	}
}

// changed writes the difference of lines that neither begin nor end alike.
func changed(out *strings.Builder, a, b []string) {
	if len(a)*len(b) > maxCompared {
		mark(out, "- ", a)
		mark(out, "+ ", b)
		return
	}
	// common[i][j] is how many lines a[i:] and b[j:] have in common, in order.
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			mark(out, "  ", a[i:i+1])
			i++
			j++
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			mark(out, "- ", a[i:i+1])
			i++
		default:
			mark(out, "+ ", b[j:j+1])
			j++
		}
	}
}
