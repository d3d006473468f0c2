package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (c *completionCmd) Help() string {
	return "Put this into the start-up file of your shell:\n\n  bash:  source <(daybook completion bash)\n  zsh:   source <(daybook completion zsh)\n  fish:  daybook completion fish | source"
}

func (c *completionCmd) Run(e *env) error {
	var b strings.Builder
	switch c.Shell {
	case "bash", "zsh":
		if c.Shell == "zsh" {
			b.WriteString("(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i; }\nautoload -Uz +X bashcompinit && bashcompinit\n")
		}
		b.WriteString("_daybook() {\n  local cur=${COMP_WORDS[COMP_CWORD]} words\n  if [ \"$COMP_CWORD\" -eq 1 ]; then\n")
		fmt.Fprintf(&b, "    words=%q\n  else\n    case ${COMP_WORDS[1]} in\n", strings.Join(commands(e.model.Children), " "))
		for _, n := range e.model.Children {
			fmt.Fprintf(&b, "      %s) words=%q ;;\n", n.Name, strings.Join(append(commands(n.Children), flags(e.model, n)...), " "))
		}
		b.WriteString("    esac\n    [ \"$COMP_CWORD\" -eq 2 ] || case ${COMP_WORDS[1]}/${COMP_WORDS[2]} in\n")
		for _, n := range e.model.Children {
			for _, c := range n.Children {
				fmt.Fprintf(&b, "      %s/%s) words=%q ;;\n", n.Name, c.Name, strings.Join(flags(e.model, c), " "))
			}
		}
		b.WriteString(`    esac
    # The words of the command that is run complete as they do without us.
    if [ "${COMP_WORDS[1]}" = run ] && [[ $cur != -* ]]; then
      COMPREPLY=($(compgen -c -f -- "$cur"))
      return
    fi
    # The paths of streams are asked of the server.
    case ${COMP_WORDS[1]} in
      cat|tail|ls|purge) [[ $cur == -* ]] || words=$(daybook ls --paths 2>/dev/null) ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _daybook daybook
`)
	case "fish":
		b.WriteString("complete -c daybook -f\n")
		for _, n := range e.model.Children {
			fmt.Fprintf(&b, "complete -c daybook -n __fish_use_subcommand -a %s -d %s\n", n.Name, quoteFish(n.Help))
			fishFlags(&b, n.Name, append(append([]*kong.Flag{}, e.model.Flags...), n.Flags...))
			for _, c := range n.Children {
				fmt.Fprintf(&b, "complete -c daybook -n '__fish_seen_subcommand_from %s; and not __fish_seen_subcommand_from %s' -a %s -d %s\n",
					n.Name, strings.Join(commands(n.Children), " "), c.Name, quoteFish(c.Help))
				fishFlags(&b, n.Name+"; and __fish_seen_subcommand_from "+c.Name, c.Flags)
			}
		}
		b.WriteString("complete -c daybook -n '__fish_seen_subcommand_from cat tail ls purge' -a '(daybook ls --paths 2>/dev/null)'\n")
		b.WriteString("complete -c daybook -n '__fish_seen_subcommand_from run' -a '(__fish_complete_subcommand --fcs-skip=2)'\n")
	}
	_, err := e.stdout.WriteString(b.String())
	return err
}

// fishFlags completes flags behind commands.
func fishFlags(b *strings.Builder, behind string, flags []*kong.Flag) {
	for _, f := range flags {
		fmt.Fprintf(b, "complete -c daybook -n '__fish_seen_subcommand_from %s' -l %s -d %s\n", behind, f.Name, quoteFish(f.Help))
	}
}

func commands(nodes []*kong.Node) []string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return out
}

func flags(m *kong.Application, n *kong.Node) []string {
	var out []string
	for _, f := range append(append([]*kong.Flag{}, m.Flags...), n.Flags...) {
		out = append(out, "--"+f.Name)
	}
	return out
}

func quoteFish(s string) string { return "'" + strings.ReplaceAll(s, "'", `\'`) + "'" }
