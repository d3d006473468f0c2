package disklog

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"path/filepath"
	"sync"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/internal/vfs"
	"github.com/daybook-dev/daybook/journal/broker/engine"
)

// stage is a file in the staging directory, which is emptied at start. It need not be durable before it is committed.
type stage struct {
	fs   vfs.FS
	path string
	file vfs.File
	size int64
	// reserved is how much disk space the file takes, as the budget knows.
	reserved int64
	budget   *budget
	crc      uint32
	hash     hash.Hash
	// blocks are the sums as those of a fragment that begins with the content.
	blocks blockSums
	// syncing takes the outcome of the sync that runs behind the writes; nil if none does. unsynced is how much was written since
	// it began.
	syncing  chan error
	unsynced int64
	// taken is set when the file is a fragment's, or has been removed.
	taken, closed bool
}

// Stage takes the content of an append that is too large for memory.
func (l *Log) Stage(context.Context) (engine.Stage, error) {
	if err := l.writer.failure(); err != nil {
		return nil, err
	}
	st := &stage{
		fs:   l.opts.FS,
		path: filepath.Join(l.path(stagingDir), fmt.Sprintf("%016x", l.staged.Add(1))),
		hash: sha1.New(), blocks: newBlockSums(), budget: &l.budget,
	}
	if err := l.budget.admit(0); err != nil {
		return nil, fmt.Errorf("stage content: %w", err)
	}
	f, err := l.opts.FS.Create(st.path)
	if err != nil {
		return nil, fmt.Errorf("stage content: %w", noSpace(err))
	}
	st.file = f
	return st, nil
}

func (st *stage) Write(p []byte) (int, error) {
	if need := st.size + int64(len(p)); need > st.reserved {
		if err := st.reserve((need + stageStep - 1) / stageStep * stageStep); err != nil {
			return 0, fmt.Errorf("stage content: %w", noSpace(err))
		}
	}
	if n, err := st.writeAndSum(p); err != nil {
		return n, fmt.Errorf("stage content: %w", noSpace(err))
	}
	st.size += int64(len(p))
	st.unsynced += int64(len(p))
	if err := st.syncBehind(); err != nil {
		return 0, fault.New(fault.Transient, "sync staged content: %w", err)
	}
	return len(p), nil
}

// sumsAside is the least content that another goroutine sums while it is written; both take about as long.
const sumsAside = 64 << 10

func (st *stage) writeAndSum(p []byte) (int, error) {
	sum := func() {
		st.crc = crc32.Update(st.crc, castagnoli, p)
		st.hash.Write(p)
		st.blocks = st.blocks.extend(p)
	}
	if len(p) < sumsAside {
		sum()
		return st.file.WriteAt(p, st.size)
	}
	var summing sync.WaitGroup
	summing.Go(sum)
	defer summing.Wait()
	return st.file.WriteAt(p, st.size)
}

// syncStep is how much is written before it is synced while more comes. Then little is left to sync at the end.
const syncStep = 8 << 20

// syncBehind begins a sync if there is enough to sync and none is running. It returns the error of the one before.
func (st *stage) syncBehind() error {
	if st.unsynced < syncStep {
		return nil
	}
	select {
	case err := <-st.syncing:
		st.syncing = nil
		if err != nil {
			return err
		}
	default:
		if st.syncing != nil {
			return nil
		}
	}
	st.unsynced = 0
	done := make(chan error, 1)
	st.syncing = done
	go func() { done <- st.file.Sync() }()
	return nil
}

// awaitSync waits for the sync that is running, without which the file must not be closed.
func (st *stage) awaitSync() error {
	if st.syncing == nil {
		return nil
	}
	err := <-st.syncing
	st.syncing = nil
	return err
}

// sync makes the content durable. After an error nobody knows what is: a later sync would not tell.
func (st *stage) sync() error {
	if err := st.awaitSync(); err != nil {
		return err
	}
	return st.file.Sync()
}

// reserve reserves disk space, if the budget has it.
func (st *stage) reserve(size int64) error {
	more := size - st.reserved
	if err := st.budget.admit(more); err != nil {
		return err
	}
	if err := st.file.Preallocate(size); err != nil {
		return err
	}
	st.reserved = size
	st.budget.staged.Add(more)
	return nil
}

// release gives the space back to the budget: the file is gone, or a fragment's.
func (st *stage) release() {
	st.budget.staged.Add(-st.reserved)
	st.reserved = 0
}

// move gives the file another name, and away. It is closed first, since not every system renames open files.
func (st *stage) move(path string) error {
	if err := st.close(); err != nil {
		return err
	}
	if err := st.fs.Rename(st.path, path); err != nil {
		return err
	}
	st.taken = true
	st.release()
	return nil
}

func (st *stage) close() error {
	if st.closed {
		return nil
	}
	st.closed = true
	return errors.Join(st.awaitSync(), st.file.Close())
}

// Close drops the file, unless it is a fragment's.
func (st *stage) Close() error {
	if st.taken {
		return nil
	}
	st.taken = true
	st.release()
	if err := errors.Join(st.close(), st.fs.Remove(st.path)); err != nil {
		return fmt.Errorf("drop staged content: %w", err)
	}
	return nil
}
