package disklog

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
)

// Budget bounds the disk space that journals take, so that others who use the same disk, and our own checkpoints, always find
// some. Appends that would go beyond it are refused; reads and trims go on.
type Budget struct {
	// Soft is how many bytes fragments take before the log warns, and asks for fragments to be stored elsewhere early; 0 is nine
	// tenths of Hard. Less than twice MinFree is as good a reason.
	Soft int64
	// Hard is how many bytes fragments take at most; 0 is no limit. The log itself takes a few segments more.
	Hard int64
	// MinFree is how many bytes of the file system stay free; 0 is 256 MiB, or a hundredth of the file system if that is
	// less. A negative number is none.
	MinFree int64
}

const (
	// defaultMinFree is what stays free of a large disk.
	defaultMinFree = 256 << 20
	// spaceAge and spaceStep are how long, and for how many bytes more, an answer of the file system is good.
	spaceAge  = 100 * time.Millisecond
	spaceStep = 8 << 20
	// stageStep is the space that is reserved for staged content at once: large steps make the file system's part cheap.
	stageStep = 16 << 20
)

// budget enforces a Budget.
type budget struct {
	limits  Budget
	dir     string
	space   func(dir string) (vfs.Space, error)
	logger  *slog.Logger
	metrics *metrics

	// held is the space that fragments take, staged that of content on its way.
	held   *atomic.Int64
	staged atomic.Int64

	mu      sync.Mutex
	known   vfs.Space // of asked
	asked   time.Time
	granted int64 // since asked
	warned  bool
}

// admit returns why n more bytes of content cannot be taken, or nil.
func (b *budget) admit(n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.granted+n <= spaceStep && time.Since(b.asked) <= spaceAge
	if !known {
		b.ask()
	}
	err := b.check(n)
	if err != nil && known {
		// Space may have been made meanwhile.
		b.ask()
		err = b.check(n)
	}
	if err == nil {
		b.granted += n
	}
	return err
}

// Tight reports whether the journals come near to the end of their disk space.
func (l *Log) Tight() bool {
	b := &l.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.asked) > spaceAge {
		b.ask()
	}
	_ = b.check(0) // which looks
	return b.warned
}

// ready is admit for nothing, and asks in any case.
func (b *budget) ready() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ask()
	return b.check(0)
}

// ask asks the file system. One that does not tell is no reason to refuse: it will when it is full. The caller holds mu.
func (b *budget) ask() {
	b.asked, b.granted = time.Now(), 0
	space, err := b.space(b.dir)
	if err != nil {
		space.Free = math.MaxInt64
	}
	b.known = space
	b.metrics.freeBytes.Set(float64(space.Free))
	b.metrics.heldBytes.Set(float64(b.used()))
}

func (b *budget) used() int64 { return b.held.Load() + b.staged.Load() }

// check compares with the limits what there would be with n bytes more, and tells when that comes near to them. The caller
// holds mu.
func (b *budget) check(n int64) (err error) {
	used, hard := b.used()+n, b.limits.Hard
	free, least := b.known.Free-b.granted-n, b.minFree()
	switch {
	case hard > 0 && used > hard:
		err = fault.New(fault.Transient, "the journals' disk budget of %s is used up: they hold %s", size(hard), size(used-n))
	case least > 0 && free < least:
		err = fault.New(fault.Transient, "the disk is nearly full: %s are free, and journals leave %s to others", size(b.known.Free), size(least))
	}
	near := err != nil || hard > 0 && used > cmp.Or(b.limits.Soft, hard/10*9) || free < 2*least
	if near != b.warned {
		b.warned = near
		if near {
			b.logger.Warn("journals come near to the end of their disk space", "held", used, "limit", hard, "free", b.known.Free, "left to others", least)
		} else {
			b.logger.Info("journals have disk space again", "held", used, "free", b.known.Free)
		}
	}
	return err
}

func (b *budget) minFree() int64 {
	switch {
	case b.limits.MinFree < 0:
		return 0
	case b.limits.MinFree > 0:
		return b.limits.MinFree
	}
	return min(defaultMinFree, b.known.Total/100)
}

// size writes a number of bytes for people.
func size(n int64) string {
	if n < 0 || n == math.MaxInt64 {
		return fmt.Sprintf("%d bytes", n)
	}
	for _, u := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
