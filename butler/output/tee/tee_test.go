package tee

import (
	"context"
	"errors"
	"testing"

	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/butler/output/memory"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// branch is an output that sets what an output may set, and fails if it is told to.
type branch struct {
	memory.Output
	project string
	size    int
	plain   bool
	err     error
}

func (b *branch) SendBundle(bundle *logpb.ButlerLogBundle) error {
	if bundle.GetProject() != "" {
		return errors.New("another output's project")
	}
	bundle.Project = b.project
	return errors.Join(b.err, b.Output.SendBundle(bundle))
}

func (b *branch) MaxSize() int                { return b.size }
func (b *branch) MaxSendBundles() int         { return 4 }
func (b *branch) Extensions() bool            { return !b.plain }
func (b *branch) Close(context.Context) error { return b.err }
func (b *branch) URLConstructionEnv() output.Environment {
	return output.Environment{CoordinatorHost: b.project}
}

func TestOutput(t *testing.T) {
	first, second := &branch{size: 100}, &branch{size: 50, project: "p", plain: true}
	none := &branch{}
	o := New(first, second, none)
	if o.MaxSize() != 50 || o.MaxSendBundles() != 4 || o.Extensions() || o.URLConstructionEnv().CoordinatorHost != "p" {
		t.Errorf("%d, %d, %v, %v", o.MaxSize(), o.MaxSendBundles(), o.Extensions(), o.URLConstructionEnv())
	}
	bundle := &logpb.ButlerLogBundle{Entries: []*logpb.ButlerLogBundle_Entry{{Desc: &logpb.LogStreamDescriptor{Name: "s"}, Terminal: true}}}
	if err := o.SendBundle(bundle); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	first.err = broken
	if err := o.SendBundle(bundle); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if err := o.Close(t.Context()); !errors.Is(err, broken) {
		t.Errorf("error of Close: %v", err)
	}
	for i, b := range []*branch{first, second, none} {
		if s := b.Stream("s"); s == nil || s.Terminal != 2 {
			t.Errorf("output %d got %+v", i, s)
		}
	}
	if n := o.Stats().SentMessages; n != 6 {
		t.Errorf("%d messages", n)
	}
	if o := New(first, none); !o.Extensions() || o.MaxSize() != 100 {
		t.Errorf("%v, %d", o.Extensions(), o.MaxSize())
	}
}
