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

// Diff returns the lines of both texts, those that stay after two spaces, those that go after "- ", and those that come after
// "+ ". It is empty if the texts are equal.
func Diff(before, after string) string {
	if before == after {
		return ""
	}
	a, b := strings.SplitAfter(before, "\n"), strings.SplitAfter(after, "\n")
	a, b = a[:len(a)-1], b[:len(b)-1]
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
	var out strings.Builder
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out.WriteString("  " + a[i])
			i++
			j++
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out.WriteString("- " + a[i])
			i++
		default:
			out.WriteString("+ " + b[j])
			j++
		}
	}
	return out.String()
}
