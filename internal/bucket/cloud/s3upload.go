package cloud

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/daybook-dev/daybook/internal/bucket"
)

// abortLimit is how long the parts of a failed upload may take to be dropped.
const abortLimit = 10 * time.Second

func (b *s3Bucket) upload(ctx context.Context, key string, o bucket.Object) error {
	if o.Size > partSize {
		return b.uploadParts(ctx, key, o)
	}
	_, err := b.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &b.Bucket, Key: &key, Body: io.NewSectionReader(o.Content, 0, o.Size), ContentLength: &o.Size, ContentMD5: base64Of(o.MD5),
		ContentType: aws.String(contentType), ContentEncoding: text(o.Encoding), IfNoneMatch: ifNoneMatch(o),
		ACL: types.ObjectCannedACL(b.ACL), StorageClass: types.StorageClass(b.StorageClass),
		ServerSideEncryption: types.ServerSideEncryption(b.SSE), SSEKMSKeyId: text(b.SSEKMSKeyID),
	})
	return err
}

func (b *s3Bucket) uploadParts(ctx context.Context, key string, o bucket.Object) (err error) {
	made, err := b.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &b.Bucket, Key: &key, ContentType: aws.String(contentType), ContentEncoding: text(o.Encoding),
		ACL: types.ObjectCannedACL(b.ACL), StorageClass: types.StorageClass(b.StorageClass),
		ServerSideEncryption: types.ServerSideEncryption(b.SSE), SSEKMSKeyId: text(b.SSEKMSKeyID),
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
		_, _ = b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.Bucket, Key: &key, UploadId: made.UploadId})
	}()
	done := make([]types.CompletedPart, (o.Size+partSize-1)/partSize)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parts)
	for i := range done {
		at := int64(i) * partSize
		size := min(partSize, o.Size-at)
		group.Go(func() error {
			number := aws.Int32(int32(i) + 1)
			body := io.NewSectionReader(o.Content, at, size)
			sum, err := sumOf(body)
			if err != nil {
				return err
			}
			out, err := b.client.UploadPart(groupCtx, &s3.UploadPartInput{
				Bucket: &b.Bucket, Key: &key, UploadId: made.UploadId, PartNumber: number,
				Body: body, ContentLength: &size, ContentMD5: base64Of(sum),
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
	_, err = b.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &b.Bucket, Key: &key, UploadId: made.UploadId, IfNoneMatch: ifNoneMatch(o),
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

// sumOf returns the MD5 sum of a part of an object, which is at its beginning before and after.
func sumOf(part io.ReadSeeker) ([]byte, error) {
	sum := md5.New()
	if _, err := io.Copy(sum, part); err != nil {
		return nil, err
	}
	_, err := part.Seek(0, io.SeekStart)
	return sum.Sum(nil), err
}

func base64Of(sum []byte) *string {
	return text(base64.StdEncoding.EncodeToString(sum))
}

// text returns nil for what is not set.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
