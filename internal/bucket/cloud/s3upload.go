package cloud

import (
	"context"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/daybook-dev/daybook/internal/bucket"
)

const (
	// s3Part is the most that goes to S3 in one request, and the size of the parts of larger objects.
	s3Part = 64 << 20
	// abortLimit is how long the parts of a failed upload may take to be dropped.
	abortLimit = 10 * time.Second
)

// s3Uploader uploads objects from where they are: neither they nor their parts are held in memory.
type s3Uploader struct {
	S3
	client *s3.Client
}

func (u *s3Uploader) upload(ctx context.Context, key string, o bucket.Object) error {
	if o.Size > s3Part {
		return u.uploadParts(ctx, key, o)
	}
	_, err := u.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &u.Bucket, Key: &key, Body: io.NewSectionReader(o.Content, 0, o.Size), ContentLength: &o.Size,
		ContentType: aws.String(contentType), ContentEncoding: text(o.Encoding), IfNoneMatch: ifNoneMatch(o),
		ACL: types.ObjectCannedACL(u.ACL), StorageClass: types.StorageClass(u.StorageClass),
		ServerSideEncryption: types.ServerSideEncryption(u.SSE), SSEKMSKeyId: text(u.SSEKMSKeyID),
	})
	return err
}

func (u *s3Uploader) uploadParts(ctx context.Context, key string, o bucket.Object) (err error) {
	made, err := u.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &u.Bucket, Key: &key, ContentType: aws.String(contentType), ContentEncoding: text(o.Encoding),
		ACL: types.ObjectCannedACL(u.ACL), StorageClass: types.StorageClass(u.StorageClass),
		ServerSideEncryption: types.ServerSideEncryption(u.SSE), SSEKMSKeyId: text(u.SSEKMSKeyID),
	})
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortLimit)
		defer cancel()
		// What is left is the business of the bucket's life-cycle rules.
		_, _ = u.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &u.Bucket, Key: &key, UploadId: made.UploadId})
	}()
	done := make([]types.CompletedPart, (o.Size+s3Part-1)/s3Part)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parts)
	for i := range done {
		at := int64(i) * s3Part
		size := min(s3Part, o.Size-at)
		group.Go(func() error {
			number := aws.Int32(int32(i) + 1)
			out, err := u.client.UploadPart(groupCtx, &s3.UploadPartInput{
				Bucket: &u.Bucket, Key: &key, UploadId: made.UploadId, PartNumber: number,
				Body: io.NewSectionReader(o.Content, at, size), ContentLength: &size,
			})
			if err == nil {
				done[i] = types.CompletedPart{ETag: out.ETag, PartNumber: number}
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	_, err = u.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &u.Bucket, Key: &key, UploadId: made.UploadId, IfNoneMatch: ifNoneMatch(o),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
	})
	return err
}

func ifNoneMatch(o bucket.Object) *string {
	if o.IfAbsent {
		return aws.String("*")
	}
	return nil
}

// text returns nil for what is not set.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
