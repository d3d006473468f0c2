package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"

	"github.com/daybook-dev/daybook/internal/fault"
)

// version is set by the linker for releases; otherwise the build information tells.
var version = ""

func versionString() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return v
}

type versionCmd struct{}

func (versionCmd) Run(e *env) error {
	_, err := fmt.Fprintln(e.stdout, versionLine())
	return err
}

// versionLine is what the command and the flag print.
func versionLine() string {
	return fmt.Sprintf("daybook %s %s %s/%s", versionString(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

type helpCmd struct {
	Command []string `arg:"" optional:"" help:"The command to show help for."`
}

func (c *helpCmd) Run(e *env, k *kong.Kong) error {
	if _, err := k.Parse(append(c.Command, "--help")); err != nil {
		return fault.New(fault.Invalid, "%w; daybook --help lists the commands", err)
	}
	return nil
}
