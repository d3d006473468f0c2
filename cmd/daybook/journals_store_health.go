package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

type journalsStoreHealthCmd struct {
	journalsFlags
	Store       string  `arg:"" help:"Store, as in specs: s3://BUCKET/PREFIX/, gs://BUCKET/PREFIX/, azure://CONTAINER/PREFIX/ or file:///PREFIX/." placeholder:"STORE"`
	CheckDelete *string `help:"Check also that objects below this prefix can be deleted; an empty one is the root of the store." name:"check-delete-prefix" placeholder:"PREFIX"`
}

func (c *journalsStoreHealthCmd) Help() string {
	return "The broker writes an object, lists it and reads it. Brokers check only stores that journals have.\n\n" +
		"  daybook journals store-health s3://acme-journals/prod/"
}

func (c *journalsStoreHealthCmd) Run(e *env) (err error) {
	store := protocol.FragmentStore(c.Store)
	if err := store.Validate(); err != nil {
		return fault.New(fault.Invalid, "store %q: %w", c.Store, err)
	}
	jc, closeClient, err := c.open(e)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeClient()) }()
	ctx, cancel := context.WithTimeout(e.ctx, storeHealthLimit)
	defer cancel()
	resp, err := client.FragmentStoreHealth(ctx, jc, store, c.CheckDelete)
	if err != nil {
		return fmt.Errorf("check %s: %w", store, err)
	}
	if resp.GetStatus() != protocol.Status_OK {
		return fault.New(fault.Precondition, "%s is not healthy: %s", store, resp.GetStoreHealthError())
	}
	_, err = fmt.Fprintf(e.stdout, "%s is healthy\n", store)
	return err
}
