package types

// maxRealm is the longest name of a realm, in bytes.
const maxRealm = 400

// ValidRealm reports whether a name is one of a realm within a project (spec coordinator 3.2): a-z, 0-9 and _./- or one of the three that begin
// with @. Programs that ask this begin with every command, and a regular expression of 400 repetitions takes them milliseconds to compile.
func ValidRealm(name string) bool {
	switch name {
	case "@root", "@legacy", "@project":
		return true
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_', c == '.', c == '/', c == '-':
		default:
			return false
		}
	}
	return len(name) != 0 && len(name) <= maxRealm
}
