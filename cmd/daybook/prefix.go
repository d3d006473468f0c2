package main

import (
	"crypto/rand"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/daybook-dev/daybook/logs/types"
)

// generatePrefix makes the prefix of a command that was not given one: user/host/command/time-unique, so that a glob finds all runs
// of a command, and they sort by time.
func generatePrefix(args []string, now time.Time) (types.StreamName, error) {
	name := "user"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username[strings.LastIndexByte(u.Username, '\\')+1:]
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "host"
	}
	unique := strings.ToLower(rand.Text()[:6])
	return types.MakeStreamName("x_", clip(name), clip(host), clip(commandName(args)), now.UTC().Format("20060102-150405-")+unique)
}

// commandName is what people call a command: go-vet, make-test, seq.
func commandName(args []string) string {
	name := strings.TrimSuffix(filepath.Base(args[0]), ".exe")
	if len(args) > 1 && isWord(args[1]) {
		name += "-" + args[1]
	}
	return name
}

// isWord tells a subcommand from an argument.
func isWord(s string) bool {
	if s == "" || len(s) > 20 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return s[0] != '-'
}

func clip(s string) string { return s[:min(len(s), 64)] }
