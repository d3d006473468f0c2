package ingest

import (
	"hash/fnv"

	"github.com/daybook-dev/daybook/logs/types"
)

// Choose returns which of the journals takes what is sent below a prefix: the same one each time, and with other journals another one as
// rarely as can be (rendezvous hashing). Without any it is DefaultJournal.
func Choose(journals []string, project types.Project, prefix types.StreamName) string {
	chosen, most := DefaultJournal, uint64(0)
	for i, j := range journals {
		h := fnv.New64a()
		_, _ = h.Write([]byte(project))
		_, _ = h.Write([]byte{0})
		_, _ = h.Write([]byte(prefix))
		_, _ = h.Write([]byte{0})
		_, _ = h.Write([]byte(j))
		if weight := mix(h.Sum64()); i == 0 || weight > most || weight == most && j < chosen {
			chosen, most = j, weight
		}
	}
	return chosen
}

// mix spreads the bits of a hash whose last bytes hardly reach the upper ones (the finalizer of MurmurHash3).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
