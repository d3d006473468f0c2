// Command daybook captures the output of everything you run, shows it live, and keeps it.
//
// One file a subcommand: flags, and the wiring of the rooms that do the work. system.go wires a whole system in one process;
// link.go finds the server a command talks to.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/daybook-dev/daybook/internal/fault"
)

// Exit codes besides the captured command's own.
const (
	exitOK         = 0
	exitFailure    = 1
	exitUsage      = 2
	exitIncomplete = 3   // tail, cat: the stream ended, or is, incomplete
	exitCapture    = 125 // run: the command could not be captured and was not started
)

// cli is the command line.
type cli struct {
	Run         runCmd         `cmd:"" help:"Run a command, with its output on the terminal and captured."`
	Serve       serveCmd       `cmd:"" help:"Serve everything on one port."`
	Cat         catCmd         `cmd:"" help:"Print the exact bytes of a stream."`
	Tail        tailCmd        `cmd:"" help:"Print the end of a stream, and follow it."`
	Ls          lsCmd          `cmd:"" help:"List streams, newest first."`
	Purge       purgeCmd       `cmd:"" help:"Hide a stream, and have it removed."`
	Undelete    undeleteCmd    `cmd:"" help:"Take a purge back."`
	Usage       usageCmd       `cmd:"" help:"Tell what projects hold."`
	Stream      streamCmd      `cmd:"" help:"Capture stdin, or a file, as a stream."`
	Butler      butlerCmd      `cmd:"" help:"Capture the streams that programs open, until it is stopped."`
	Flush       flushCmd       `cmd:"" help:"Send what commands left in their spools."`
	Spool       spoolCmd       `cmd:"" help:"Look at what no server has taken yet."`
	LuciContext luciContextCmd `cmd:"" name:"luci-context" help:"Run an existing tool, as logdog_butler, against the server."`
	Journals    journalsCmd    `cmd:"" help:"Work with journals, of this server or of other brokers."`
	Token       tokenCmd       `cmd:"" help:"Create, list and revoke tokens."`
	Config      configCmd      `cmd:"" help:"Check and show the configuration."`
	Tasks       tasksCmd       `cmd:"" help:"See what the server still has to do for streams, and what it gave up."`
	Quarantine  quarantineCmd  `cmd:"" help:"Work with messages that the Collector could not use."`
	Completion  completionCmd  `cmd:"" help:"Print a completion script for a shell."`
	Version     versionCmd     `cmd:"" help:"Print the version."`
	Help        helpCmd        `cmd:"" help:"Show help for a command."`

	LogLevel    *slog.Level      `help:"Least level of messages on stderr: debug, info, warn or error. By default warn; run, whose stderr is the command's, is silent." env:"DAYBOOK_LOG_LEVEL" name:"log-level" placeholder:"LEVEL"`
	ShowVersion kong.VersionFlag `help:"Print the version." name:"version" hidden:""`
}

// exitError ends the program with a code, after printing err unless it is nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return fmt.Sprintf("exit %d: %v", e.code, e.err) }
func (e *exitError) Unwrap() error { return e.err }

// env is what every subcommand gets.
type env struct {
	ctx    context.Context // ends at the first SIGINT or SIGTERM, unless the subcommand takes signals itself
	stdin  *os.File
	stdout *os.File
	stderr *os.File
	log    *slog.Logger
	model  *kong.Application
}

func main() { os.Exit(program(os.Args[1:])) }

func program(args []string) int {
	var c cli
	parser, err := newParser(&c)
	if err != nil {
		fmt.Fprintf(os.Stderr, "daybook: %v\n", err)
		return exitFailure
	}
	return run(parser, &c, args)
}

func newParser(c *cli) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("daybook"),
		kong.Description("Captures the output of everything you run, shows it live, and keeps it."),
		kong.Vars{"listen": defaultListen, "version": versionLine()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Exit(func(code int) { panic(exitCode(code)) }),
	)
}

// exitCode carries the code of kong's own exits (--help) out of the parser.
type exitCode int

func run(parser *kong.Kong, c *cli, args []string) (code int) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exitCode)
			if !ok {
				panic(r)
			}
			code = int(e)
		}
	}()
	if len(args) == 0 {
		args = []string{"--help"}
	}
	kctx, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "daybook: %v; see %s --help\n", err, commandOf(err))
		return exitUsage
	}
	ends := []os.Signal{syscall.SIGTERM}
	if !signal.Ignored(os.Interrupt) { // as that of a job which a script put into the background is
		ends = append(ends, os.Interrupt)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	e := &env{
		ctx: ctx, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, model: parser.Model,
		log: logger(c.LogLevel, kctx.Selected().Name),
	}
	return report(os.Stderr, kctx.Run(e))
}

func logger(level *slog.Level, command string) *slog.Logger {
	if level == nil {
		if command == "run" {
			return slog.New(slog.DiscardHandler)
		}
		warn := slog.LevelWarn
		level = &warn
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// report prints an error as users should see it, and returns the exit code.
func report(w io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			fmt.Fprintf(w, "daybook: %v\n", exit.err)
		}
		return exit.code
	}
	fmt.Fprintf(w, "daybook: %v\n", err)
	if fault.Is(err, fault.Invalid) {
		return exitUsage
	}
	return exitFailure
}

// commandOf returns the command that was understood before a parser's error.
func commandOf(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if n := parse.Context.Selected(); n != nil {
			return "daybook " + n.Path()
		}
	}
	return "daybook"
}
