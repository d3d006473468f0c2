package daybook

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// The files of a spool directory.
const (
	claimFile   = "butler.json"
	lockFile    = "LOCK"
	streamsFile = "streams"
	appendsDir  = "appends"
)

const (
	claimVersion = 1
	nonceLength  = 32
)

// claim is what the registration of the prefix, and each bundle, need. It is in the spool before anything else is, so that another
// process can go on where this one stopped.
type claim struct {
	Version int              `json:"version"`
	Project types.Project    `json:"project"`
	Prefix  types.StreamName `json:"prefix"`
	// Secret goes into each bundle. Whoever reads the file may write to the prefix.
	Secret []byte `json:"secret"`
	// Nonce makes a repeated registration the same one.
	Nonce []byte `json:"nonce"`
	// SourceInfo, Realm and Expiration are those of the Config.
	SourceInfo []string      `json:"source_info,omitempty"`
	Realm      string        `json:"realm,omitempty"`
	Expiration time.Duration `json:"expiration_ns,omitempty"`
	Created    time.Time     `json:"created"`
	// PID is for humans: the lock tells who lives.
	PID int `json:"pid"`
}

func newClaim(c *Config, source []string) *claim {
	nonce := make([]byte, nonceLength)
	_, _ = rand.Read(nonce) // never fails
	return &claim{
		Version: claimVersion,
		Project: c.Project, Prefix: c.Prefix,
		Secret: types.NewPrefixSecret(), Nonce: nonce,
		SourceInfo: source, Realm: c.Realm, Expiration: c.Expiration,
		Created: time.Now().UTC(), PID: os.Getpid(),
	}
}

// write puts the claim into a directory, whole or not at all, readable by its owner alone.
func (c *claim) write(dir string) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, claimFile), append(data, '\n'))
}

// readClaim reads the claim of a directory. An error that is os.ErrNotExist says that the directory is no spool.
func readClaim(dir string) (*claim, error) {
	path := filepath.Join(dir, claimFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := new(claim)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fault.New(fault.DataLoss, "%s: %w", path, err)
	}
	if c.Version != claimVersion {
		return nil, fault.New(fault.Unimplemented, "%s has version %d; this program knows %d", path, c.Version, claimVersion)
	}
	err = errors.Join(c.Project.Validate(), c.Prefix.Validate(), types.PrefixSecret(c.Secret).Validate())
	if err == nil && len(c.Nonce) != nonceLength {
		err = fmt.Errorf("nonce has %d bytes; %d are required", len(c.Nonce), nonceLength)
	}
	if err != nil {
		return nil, fault.New(fault.DataLoss, "%s: %w", path, err)
	}
	return c, nil
}

// writeFile replaces a file by way of a temporary one.
func writeFile(path string, data []byte) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
