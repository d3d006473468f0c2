package pebble

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage"
)

// The first byte of a key is its kind.
const (
	kindCheckpoint = 'c'
	kindEntry      = 'e'
)

// formatKey holds the format version.
var formatKey = []byte("v")

// streamID stands for a stream in keys. Names can have 4 KiB, ids are short and of one length.
type streamID [sha256.Size]byte

func idOf(s storage.Stream) streamID { return sha256.Sum256([]byte(s.String())) }

const entryKeySize = 1 + sha256.Size + 8

// appendEntryKey appends the key of an entry. Keys of a stream sort by index.
func appendEntryKey(b []byte, id streamID, index types.MessageIndex) []byte {
	b = append(b, kindEntry)
	b = append(b, id[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(index))
}

// endKey sorts behind all entries of a stream: no index has the highest bit set.
func endKey(id streamID) []byte {
	b := appendEntryKey(make([]byte, 0, entryKeySize), id, 0)
	b[1+sha256.Size] = 0x80
	return b
}

// indexOf returns the index in an entry's key.
func indexOf(key []byte) (types.MessageIndex, error) {
	if len(key) != entryKeySize {
		return 0, fault.New(fault.DataLoss, "entry key %x has %d bytes; want %d", key, len(key), entryKeySize)
	}
	return types.MessageIndex(binary.BigEndian.Uint64(key[1+sha256.Size:])), nil
}

func checkpointKey(reader string) []byte { return append([]byte{kindCheckpoint}, reader...) }
