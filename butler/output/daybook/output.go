// Package daybook is the output to a Daybook server, by way of a spool on the local disk.
//
// The Butler chooses the secret of its prefix itself and wishes the server to use it. So bundles can be written before any server
// was reached, and SendBundle is done when the spool has the bundle. In the background the prefix is registered and the spool
// sent, for as long as that takes. What no server took stays in the spool, and Resume, in another process, sends it later, and ends
// the streams that nobody ended.
//
// # The spool
//
// A spool is a directory of these files:
//
//	LOCK         locked while its owner lives
//	butler.json  project, prefix, secret and nonce of the registration; the directory is a spool while this file is there
//	streams      which streams are open, and the last index that may have been sent of each
//	appends/     the bundles, in the files of package journal/client
//
// It holds everything that SendBundle accepted when the process dies, but not what the operating system loses with the machine. The
// format's page is docs/formats/butler-spool.md.
//
// An Output is safe for concurrent use.
package daybook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/butler/output"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/filelock"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/logs/envelope"
	"github.com/daybook-dev/daybook/logs/logpb"
)

// senders is how many bundles are compressed at once at most.
const senders = 4

// Output sends bundles to a Daybook server.
type Output struct {
	c     Config
	log   *slog.Logger
	claim *claim
	lock  *filelock.Lock

	// ctx ends with the owner's context, with Close, and when the server refuses for good.
	ctx     context.Context
	cancel  context.CancelFunc
	service *client.AppendService
	// registered is resolved, without an error, when the server has accepted the registration. Appends wait for it.
	registered *client.AsyncOperation
	journal    atomic.Pointer[string]
	tasks      sync.WaitGroup
	encoders   sync.Pool
	busy       atomic.Int64

	mu      sync.Mutex
	streams *streams
	problem error
	// last is the batch that was appended to last.
	last  *client.AsyncAppend
	stats output.Stats
}

var _ interface {
	output.Output
	output.Extender
} = (*Output)(nil)

// New makes a spool and returns an output that works until ctx ends or Close is called. It does not wait for a server. After an error
// nothing is left of the spool.
func New(ctx context.Context, c Config) (*Output, error) {
	if err := c.validate(); err != nil {
		return nil, c.wrap("open", err)
	}
	o, err := create(ctx, c)
	return o, c.wrap("open", err)
}

func create(ctx context.Context, c Config) (*Output, error) {
	if err := os.MkdirAll(c.SpoolDir, 0o700); err != nil {
		return nil, err
	}
	if files, err := os.ReadDir(c.SpoolDir); err != nil {
		return nil, err
	} else if len(files) > 0 {
		return nil, fault.New(fault.Precondition, "the spool directory %s is not empty; resume it, or choose another one", c.SpoolDir)
	}
	lock, err := filelock.TryLock(filepath.Join(c.SpoolDir, lockFile))
	if err != nil {
		return nil, err
	}
	source := append(slices.Clone(c.SourceInfo), "GOARCH="+runtime.GOARCH, "GOOS="+runtime.GOOS)
	o := newOutput(ctx, c, newClaim(&c, source), lock)
	if err := o.claim.write(c.SpoolDir); err != nil {
		o.cancel()
		return nil, errors.Join(err, lock.Unlock(), os.RemoveAll(c.SpoolDir))
	}
	if err := o.open(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.SpoolDir))
	}
	o.tasks.Go(func() {
		if err := o.register(o.ctx); err != nil && o.ctx.Err() == nil {
			o.refuse(err)
		}
	})
	return o, nil
}

func newOutput(ctx context.Context, c Config, k *claim, lock *filelock.Lock) *Output {
	o := &Output{c: c, log: c.Logger, claim: k, lock: lock, registered: client.NewAsyncOperation()}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	o.log = o.log.With("project", k.Project, "prefix", k.Prefix)
	o.ctx, o.cancel = context.WithCancel(ctx)
	journal := ingest.DefaultJournal
	o.journal.Store(&journal)
	o.encoders.New = func() any { return &encoder{w: envelope.Writer{Compression: envelope.Zstd}} }
	return o
}

// open opens the files below the claim. What is in the spool is sent from now on.
func (o *Output) open() (err error) {
	if o.streams, err = openStreams(filepath.Join(o.c.SpoolDir, streamsFile)); err != nil {
		o.cancel()
		return errors.Join(err, o.lock.Unlock())
	}
	if err := o.recall(); err != nil {
		o.cancel()
		return errors.Join(err, o.streams.close(), o.lock.Unlock())
	}
	o.service, err = client.OpenAppendService(o.ctx, o.c.Journals, filepath.Join(o.c.SpoolDir, appendsDir),
		client.WithLogger(o.log), client.WithSpoolLimit(o.c.spoolLimit()))
	if err != nil {
		o.cancel()
		return errors.Join(err, o.streams.close(), o.lock.Unlock())
	}
	return nil
}

// SendBundle puts a bundle into the spool. It waits while the spool or its disk is full, until there is room or the output's
// context ends. After the server has refused for good it returns the reason.
func (o *Output) SendBundle(bundle *logpb.ButlerLogBundle) error {
	o.busy.Add(1)
	defer o.busy.Add(-1)
	err := o.send(bundle)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.stats.DiscardedMessages++
		o.stats.Errors++
	}
	return o.c.wrap("send a bundle of", err)
}

func (o *Output) send(bundle *logpb.ButlerLogBundle) error {
	if err := o.stopped(); err != nil {
		return err
	}
	bundle.Project, bundle.Prefix, bundle.Secret = string(o.claim.Project), string(o.claim.Prefix), o.claim.Secret
	if err := o.note(func(s *streams) error { return s.note(bundle) }); err != nil {
		return err
	}
	err := o.append(bundle)
	if errors.Is(err, envelope.ErrTooLarge) {
		err = o.appendParts(bundle)
	}
	if err != nil {
		return err
	}
	if slices.ContainsFunc(bundle.Entries, (*logpb.ButlerLogBundle_Entry).GetTerminal) {
		return o.note(func(s *streams) error { s.noteEnds(bundle); return nil })
	}
	return nil
}

// note takes something down for another process to know.
func (o *Output) note(what func(*streams) error) error {
	o.mu.Lock()
	err := what(o.streams)
	o.mu.Unlock()
	if err != nil {
		return err
	}
	return o.persist("note the streams of a bundle", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.streams.flush()
	})
}

// encoder is the memory for one message at a time.
type encoder struct {
	w   envelope.Writer
	buf []byte
}

// record returns a bundle as it lies in the journal, valid until the next call.
func (e *encoder) record(bundle *logpb.ButlerLogBundle) ([]byte, error) {
	// The header says how long the message is, and so is written behind its back.
	buf, err := e.w.Append(append(e.buf[:0], make([]byte, ingest.HeaderSize)...), bundle)
	if err != nil {
		return nil, err
	}
	e.buf = buf
	if _, err := ingest.AppendHeader(buf[:0], len(buf)-ingest.HeaderSize); err != nil {
		return nil, err
	}
	return buf, nil
}

// append puts one message into the spool.
func (o *Output) append(bundle *logpb.ButlerLogBundle) error {
	e := o.encoders.Get().(*encoder)
	defer o.encoders.Put(e)
	record, err := e.record(bundle)
	if err != nil {
		return err
	}
	return o.persist("spool a bundle", func() error {
		if err := o.service.WaitForRoom(o.ctx, int64(len(record))); err != nil {
			return err
		}
		a := o.service.StartAppend(&protocol.AppendRequest{Journal: *o.journal.Load()}, client.OpFutures{o.registered: {}})
		_, err := a.Writer().Write(record)
		if err := a.Require(err).Release(); err != nil {
			return err
		}
		o.appended(a, len(record))
		return nil
	})
}

// appended counts an append and looks after its batch.
func (o *Output) appended(a *client.AsyncAppend, size int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.SentMessages++
	o.stats.SentBytes += int64(size)
	if o.last == a {
		return
	}
	o.last = a
	o.tasks.Go(func() {
		// A service that was closed before it could send everything is no refusal.
		if err := a.Err(); err != nil && !errors.Is(err, context.Canceled) && o.ctx.Err() == nil {
			o.refuse(err)
		}
	})
}

// appendParts is append for a bundle that is too large for one message.
func (o *Output) appendParts(bundle *logpb.ButlerLogBundle) error {
	parts, err := output.Split(bundle, envelope.MaxSize)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if err := o.append(part); err != nil {
			return err
		}
	}
	return nil
}

// persist repeats what failed for reasons of the local disk, until it works or the output's context ends.
func (o *Output) persist(what string, f func() error) error {
	for wait := backoff(0); ; {
		err := f()
		if err == nil || fault.Is(err, fault.Invalid) {
			return err
		}
		if stopped := o.stopped(); stopped != nil {
			return stopped
		}
		o.log.Warn("failed, trying again", "what", what, "error", err)
		if sleep(o.ctx, wait.next()) != nil {
			return fmt.Errorf("%w while this failed: %w", o.stopped(), err)
		}
	}
}

// stopped returns why nothing can be sent any more.
func (o *Output) stopped() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.problem != nil {
		return o.problem
	}
	return o.ctx.Err()
}

// refuse ends the work because of something that will not pass. What is in the spool stays there.
func (o *Output) refuse(err error) {
	o.mu.Lock()
	first := o.problem == nil
	if first {
		o.problem = err
	}
	o.mu.Unlock()
	if !first {
		return
	}
	o.log.Error("the server refused for good; the spool is kept", "spool", o.c.SpoolDir, "error", err)
	o.cancel()
	if o.c.OnProblem != nil {
		o.c.OnProblem(err)
	}
}

// Pending returns how many bytes are in the spool that the server has not acknowledged.
func (o *Output) Pending() int64 {
	bytes, _ := o.service.Pending()
	return bytes
}

// Busy reports whether a bundle is on its way into the spool. That it is for long says that the spool, or its disk, is full.
func (o *Output) Busy() bool { return o.busy.Load() > 0 }

// Flush waits until the server has acknowledged everything that was sent before the call, or ctx ends.
func (o *Output) Flush(ctx context.Context) error {
	return o.c.wrap("flush", o.outcome(o.service.Drain(ctx)))
}

// Close is Flush, and then the end of the output. When everything was acknowledged and every stream had its end, the spool is
// removed. Otherwise it stays for Resume, and unless only ends were missing, the error tells why.
func (o *Output) Close(ctx context.Context) error { return o.c.wrap("close", o.close(ctx)) }

func (o *Output) close(ctx context.Context) error {
	err := o.outcome(o.service.Close(ctx))
	o.cancel()
	o.tasks.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	done := err == nil && len(o.streams.open) == 0
	err = errors.Join(err, o.streams.close())
	if !done {
		return errors.Join(err, o.lock.Unlock())
	}
	return errors.Join(err, removeSpool(o.c.SpoolDir, o.lock))
}

// outcome is err, or what explains it better.
func (o *Output) outcome(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.problem != nil {
		return o.problem
	}
	return err
}

// MaxSendBundles implements output.Output: compression takes a processor.
func (o *Output) MaxSendBundles() int { return min(runtime.GOMAXPROCS(0), senders) }

// MaxSize implements output.Output.
func (o *Output) MaxSize() int { return o.c.maxSize() }

// Extensions implements output.Extender.
func (o *Output) Extensions() bool { return true }

// URLConstructionEnv implements output.Output.
func (o *Output) URLConstructionEnv() output.Environment {
	return output.Environment{CoordinatorHost: o.c.CoordinatorHost, Project: o.claim.Project, Prefix: o.claim.Prefix}
}

// Stats implements output.Output. Messages are what was put into the spool, bytes their size there.
func (o *Output) Stats() output.Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stats
}

// backoff is the number of attempts that failed.
type backoff int

// next returns how long to wait before the next attempt.
func (b *backoff) next() time.Duration {
	const first, most = 200 * time.Millisecond, 10 * time.Second
	d := min(first<<min(*b, 10), most)
	*b++
	return d
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
