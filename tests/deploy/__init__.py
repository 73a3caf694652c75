"""Tests of what runs hotprompt elsewhere: the image, the stack around it, its dashboard and alerts."""
