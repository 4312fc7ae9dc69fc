"""Parts of `finetune`: its options, what corresponds to what, labels, data that are read as steps need them."""
