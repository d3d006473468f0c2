package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

type journalsResetHeadCmd struct {
	journalsFlags
	selectFlags
}

func (c *journalsResetHeadCmd) Help() string {
	return "For disasters: when as many brokers as a journal has replicas were lost, it refuses appends, since the stores may have more than the brokers know of. " +
		"This makes it go on behind what the stores have. Wait until the lost brokers can store nothing more. Journals that are well are not harmed.\n\n" +
		"  daybook journals reset-head -l name=acme/orders"
}

func (c *journalsResetHeadCmd) Run(e *env) (err error) {
	jc, closeClient, err := c.open(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeClient()) }()
	journals, err := c.selected(e.ctx, jc)
	if err != nil {
		return err
	}
	outcomes := make([]string, len(journals))
	err = eachActive(journals, func(i int, s *protocol.JournalSpec) (err error) {
		outcomes[i], err = resetHead(e.ctx, jc, s.GetName())
		return err
	})
	return errors.Join(printOutcomes(e, journals, outcomes), err)
}

// resetHead makes an append of nothing at the end of the journal's index.
func resetHead(ctx context.Context, jc protocol.RoutedJournalClient, name string) (string, error) {
	r := client.NewReader(ctx, jc, &protocol.ReadRequest{Journal: name, Offset: int64(protocol.OffsetHead), MetadataOnly: true})
	var err error
	for err == nil || errors.Is(err, client.ErrOffsetJump) {
		_, err = r.Read(nil)
	}
	if !errors.Is(err, client.ErrOffsetNotYetAvailable) && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("find its end: %w", err)
	}
	head := r.Response.GetWriteHead()
	_, err = client.Append(ctx, jc, &protocol.AppendRequest{Journal: name, Offset: head, Suspend: protocol.AppendRequest_SUSPEND_KEEP})
	switch {
	case err == nil:
		return fmt.Sprintf("goes on at offset %d", head), nil
	case errors.Is(err, client.ErrWrongAppendOffset):
		return "is written to already", nil
	case errors.Is(err, client.ErrIndexHasGreaterOffset) && head == 0:
		return "", fmt.Errorf("its stores were not read yet; try again: %w", err)
	}
	return "", err
}
