package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/journal/spectree"
)

type journalsEditCmd struct {
	journalsFlags
	selectFlags
	MaxSize int `help:"Change at most so many journals at once; 0 changes all or none." name:"max-txn-size" default:"0" placeholder:"N"`
}

func (c *journalsEditCmd) Help() string {
	return "Opens $EDITOR, or vi, with what daybook journals list -o yaml prints. An empty file, or one without changes, changes nothing. " +
		"What is wrong with a text is told at its head, and the editor opens again; a text that was not applied is kept.\n\n" +
		"  EDITOR='code --wait' daybook journals edit -l name:prefix=acme/"
}

// Lines that begin like this are ours, and go before the text is used.
const (
	editHint  = "#⚙ "
	editError = "#⚠ "
)

func (c *journalsEditCmd) Run(e *env) (err error) {
	jc, closeClient, err := c.open(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeClient()) }()
	journals, err := c.selected(e.ctx, jc)
	if err != nil {
		return err
	}
	original, err := spectree.FromListing(journals).Marshal()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("", "daybook-journals-edit-*.yaml")
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			_ = os.Remove(f.Name())
		}
	}()
	text, problem := original, error(nil)
	for {
		before := text
		if text, err = editText(e.ctx, e, f.Name(), text, problem); err != nil {
			// The user may have written a lot before the editor failed.
			if left, readErr := readEdited(f.Name()); readErr == nil && !bytes.Equal(left, original) {
				keep = true
				return fmt.Errorf("nothing was changed: %w; your text is in %s", err, f.Name())
			}
			return fmt.Errorf("nothing was changed: %w", err)
		}
		if len(bytes.TrimSpace(text)) == 0 || bytes.Equal(text, original) || problem != nil && bytes.Equal(text, before) {
			if keep = problem != nil && len(bytes.TrimSpace(text)) != 0; keep {
				return fmt.Errorf("nothing was changed: %w; your text is in %s", problem, f.Name())
			}
			_, err = fmt.Fprintln(e.stdout, "daybook: nothing was changed")
			return err
		}
		var p *journalsPlan
		if p, problem = planText(e.ctx, jc, text); problem != nil {
			continue
		}
		if err := p.apply(e, jc, c.MaxSize); err != nil {
			keep = true
			return fmt.Errorf("%w; your text is in %s, to be applied with daybook journals apply --specs", err, f.Name())
		}
		return nil
	}
}

func planText(ctx context.Context, jc protocol.JournalClient, text []byte) (*journalsPlan, error) {
	tree, err := spectree.Parse(text)
	if err != nil {
		return nil, err
	}
	return planJournals(ctx, jc, tree)
}

// editText lets the user edit a text, below a header that says what is wrong with it.
func editText(ctx context.Context, e *env, path string, text []byte, problem error) ([]byte, error) {
	header := editHint + "Save and quit to apply. Empty the file to change nothing.\n"
	if problem != nil {
		header += editError + strings.ReplaceAll(problem.Error(), "\n", "\n"+editError) + "\n"
	}
	if err := os.WriteFile(path, append([]byte(header), text...), 0o600); err != nil {
		return nil, err
	}
	editor := cmp.Or(os.Getenv("EDITOR"), "vi")
	var cmd *exec.Cmd
	if runtime.GOOS == "windows" {
		cmd = exec.CommandContext(ctx, "cmd", "/c", editor+` "`+path+`"`)
	} else {
		// $EDITOR may have arguments.
		cmd = exec.CommandContext(ctx, "sh", "-c", editor+` "$1"`, "sh", path)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.stdin, e.stdout, e.stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run the editor %q: %w", editor, err)
	}
	return readEdited(path)
}

// readEdited returns what was written below the header.
func readEdited(path string) ([]byte, error) {
	edited, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []byte
	for line := range bytes.Lines(edited) {
		if !bytes.HasPrefix(line, []byte(strings.TrimSpace(editHint))) && !bytes.HasPrefix(line, []byte(strings.TrimSpace(editError))) {
			out = append(out, line...)
		}
	}
	return out, nil
}
